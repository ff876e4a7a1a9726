// What both sides of the C++ harness share: values as tagged JSON, one message a line, on copies of descriptors 0 and 1.
// A value is read by the type that is wanted; text that is none of it is an exception, and no more.
#pragma once
// Headers one by one: all of the library takes seconds to compile.
#include <fcntl.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cmath>
#include <concepts>
#include <cstdio>
#include <cstring>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace perilune {

struct Channel {
    int in = dup(0), out = dup(1);
    std::string rest;
    Channel() {
        int nothing = open("/dev/null", O_RDONLY);
        dup2(nothing, 0);
        dup2(2, 1);  // what is printed is shown with stderr
        close(nothing);
    }
    void send(std::string line) {
        line += '\n';
        for (size_t at = 0; at < line.size();) {
            ssize_t size = write(out, line.data() + at, line.size() - at);
            if (size < 0 && errno != EINTR) _exit(1);
            if (size > 0) at += size;
        }
    }
    std::string receive() {
        size_t end;
        while ((end = rest.find('\n')) == std::string::npos) {
            char chunk[1 << 14];
            ssize_t size = read(in, chunk, sizeof chunk);
            if (size == 0) _exit(0);  // the sandbox has hung up
            if (size < 0 && errno != EINTR) _exit(1);
            if (size > 0) rest.append(chunk, size);
        }
        std::string line = rest.substr(0, end);
        rest.erase(0, end + 1);
        return line;
    }
};

inline void write_value(std::string &to, bool value) { to += value ? "true" : "false"; }
inline void write_value(std::string &to, std::nullptr_t) { to += "null"; }
inline void write_value(std::string &to, std::nullopt_t) { to += "null"; }
inline void write_value(std::string &to, const std::string &value) {
    to += '"';
    for (unsigned char c : value) {
        char escaped[8];
        if (c < 0x20 || c == '"' || c == '\\') {
            snprintf(escaped, sizeof escaped, "\\u%04x", c);
            to += escaped;
        } else {
            to += c;
        }
    }
    to += '"';
}
inline void write_value(std::string &to, const char *value) { write_value(to, std::string(value)); }
inline void write_value(std::string &to, char value) { write_value(to, std::string(1, value)); }
template <class T>
    requires std::is_arithmetic_v<T>
void write_value(std::string &to, T value) {
    if constexpr (std::is_integral_v<T>) {
        to += std::to_string(value);
    } else if (std::isfinite(value)) {
        char digits[64];
        snprintf(digits, sizeof digits, "%.*Lg", std::numeric_limits<T>::max_digits10, (long double)value);
        to += digits;
        if (!strpbrk(digits, ".e")) to += ".0";
    } else {
        to += std::isnan(value) ? R"({"#":"float","is":"nan"})"
              : value > 0       ? R"({"#":"float","is":"inf"})"
                                : R"({"#":"float","is":"-inf"})";
    }
}
template <class T>
void write_value(std::string &to, const std::optional<T> &value);
template <class A, class B>
void write_value(std::string &to, const std::pair<A, B> &value);
template <class... T>
void write_value(std::string &to, const std::tuple<T...> &value);
template <class T>
concept Range = requires(const T &value) { value.begin(); value.end(); typename T::value_type; };
template <class T>
concept Mapping = Range<T> && requires { typename T::mapped_type; };
template <Range T>
void write_value(std::string &to, const T &values) {
    to += Mapping<T> ? R"({"#":"dict","is":[)" : "[";
    bool first = true;
    for (const auto &value : values) {
        if (!std::exchange(first, false)) to += ',';
        write_value(to, static_cast<const typename T::value_type &>(value));
    }
    to += Mapping<T> ? "]}" : "]";
}
template <class T>
void write_value(std::string &to, const std::optional<T> &value) {
    value ? write_value(to, *value) : write_value(to, nullptr);
}
template <class A, class B>
void write_value(std::string &to, const std::pair<A, B> &value) {
    to += '[', write_value(to, value.first), to += ',', write_value(to, value.second), to += ']';
}
template <class... T>
void write_value(std::string &to, const std::tuple<T...> &value) {
    to += '[';
    std::apply([&](const auto &...item) { size_t i = 0; ((i++ ? (void)(to += ',') : (void)0, write_value(to, item)), ...); }, value);
    to += ']';
}

// A place in a text that is read.
struct Reader {
    const std::string &text;
    size_t at = 0;

    [[noreturn]] void wrong() const { throw std::runtime_error("a value of another type: " + text.substr(at, 80)); }
    void blanks() {
        while (at < text.size() && isspace((unsigned char)text[at])) at++;
    }
    bool take(std::string_view word) {
        blanks();
        if (text.compare(at, word.size(), word) != 0) return false;
        at += word.size();
        return true;
    }
    void expect(std::string_view word) {
        if (!take(word)) wrong();
    }
    std::string string() {
        expect("\"");
        std::string found;
        for (;;) {
            if (at >= text.size()) wrong();
            char c = text[at++];
            if (c == '"') return found;
            if (c != '\\') {
                found += c;
                continue;
            }
            if (at >= text.size()) wrong();
            switch (char e = text[at++]) {
                case 'b': found += '\b'; break;
                case 'f': found += '\f'; break;
                case 'n': found += '\n'; break;
                case 'r': found += '\r'; break;
                case 't': found += '\t'; break;
                case 'u': utf8(found, unit()); break;
                default: found += e;
            }
        }
    }
    unsigned unit() {
        if (at + 4 > text.size()) wrong();
        unsigned code = std::stoul(text.substr(at, 4), nullptr, 16);
        at += 4;
        if (code >= 0xd800 && code < 0xdc00 && text.compare(at, 2, "\\u") == 0 && at + 6 <= text.size()) {
            code = 0x10000 + ((code - 0xd800) << 10) + (std::stoul(text.substr(at + 2, 4), nullptr, 16) - 0xdc00);
            at += 6;
        }
        return code;
    }
    static void utf8(std::string &to, unsigned code) {
        if (code < 0x80) to += code;
        else if (code < 0x800) to += 0xc0 | code >> 6, to += 0x80 | (code & 63);
        else if (code < 0x10000) to += 0xe0 | code >> 12, to += 0x80 | (code >> 6 & 63), to += 0x80 | (code & 63);
        else to += 0xf0 | code >> 18, to += 0x80 | (code >> 12 & 63), to += 0x80 | (code >> 6 & 63), to += 0x80 | (code & 63);
    }
    std::string number() {
        blanks();
        size_t start = at;
        while (at < text.size() && (isalnum((unsigned char)text[at]) || strchr("+-.", text[at]))) at++;
        return text.substr(start, at - start);
    }
    template <class Read>
    void items(Read read) {
        expect("[");
        if (take("]")) return;
        do read();
        while (take(","));
        expect("]");
    }
};

template <class T>
struct Read;
template <class T>
T read_value(Reader &from) { return Read<T>::read(from); }

template <>
struct Read<bool> {
    static bool read(Reader &from) {
        if (from.take("true")) return true;
        from.expect("false");
        return false;
    }
};
template <>
struct Read<std::string> {
    static std::string read(Reader &from) { return from.string(); }
};
template <>
struct Read<char> {
    static char read(Reader &from) {
        std::string found = from.string();
        if (found.size() != 1) from.wrong();
        return found[0];
    }
};
template <class T>
    requires std::is_arithmetic_v<T>
struct Read<T> {
    static T read(Reader &from) {
        if (from.take(R"({"#":"float","is":)") || from.take(R"({"#": "float", "is": )")) {
            T found = (T)std::stold(from.string());
            from.expect("}");
            return found;
        }
        std::string digits = from.number();
        size_t used = 0;
        bool whole = digits.find_first_of(".eE") == std::string::npos;
        T found;
        if constexpr (std::is_unsigned_v<T>) found = whole ? (T)std::stoull(digits, &used) : (T)std::stold(digits, &used);
        else found = whole && std::is_integral_v<T> ? (T)std::stoll(digits, &used) : (T)std::stold(digits, &used);
        if (used != digits.size()) from.wrong();
        if (std::is_integral_v<T> && !whole && std::stold(digits) != (long double)found) from.wrong();
        return found;
    }
};
template <class T>
struct Read<std::optional<T>> {
    static std::optional<T> read(Reader &from) {
        if (from.take("null") || from.take("None")) return std::nullopt;
        return read_value<T>(from);
    }
};
template <class A, class B>
struct Read<std::pair<A, B>> {
    static std::pair<A, B> read(Reader &from) {
        from.expect("[");
        auto first = read_value<std::remove_const_t<A>>(from);
        from.expect(",");
        auto second = read_value<B>(from);
        from.expect("]");
        return {std::move(first), std::move(second)};
    }
};
template <class... T>
struct Read<std::tuple<T...>> {
    static std::tuple<T...> read(Reader &from) {
        size_t i = 0;
        from.expect("[");
        std::tuple<T...> found{[&] {
            if (i++) from.expect(",");
            return read_value<T>(from);
        }()...};
        from.expect("]");
        return found;
    }
};
template <Range T>
    requires(!std::is_same_v<T, std::string>)
struct Read<T> {
    static T read(Reader &from) {
        T found;
        bool tagged = from.take(R"({"#":"dict","is":)") || from.take(R"({"#": "dict", "is": )");
        from.items([&] { found.insert(found.end(), read_value<typename T::value_type>(from)); });
        if (tagged) from.expect("}");
        return found;
    }
};

}  // namespace perilune
