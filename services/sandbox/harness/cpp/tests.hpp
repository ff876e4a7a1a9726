// Runs tests of a function that lies in another job. What comes back is read by the type that the test compares it with.
#pragma once
#include <algorithm>
#include <any>
#include <cassert>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <list>
#include <map>
#include <numeric>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

#include "wire.hpp"
using namespace std;

namespace perilune {

inline Channel *channel;
inline bool raised = false;

inline void end(const char *verdict, const std::string &why) {
    std::string message = "!{\"verdict\":\"" + std::string(verdict) + "\",\"why\":";
    write_value(message, why);
    channel->send(message + "}");
    _exit(0);
}

// A failed assertion, an exception that nobody catches, a crash: the tests have not passed.
inline void stopped(int) { end(raised ? "raised" : "failed", raised ? "the program raised an exception" : "an assertion failed"); }

inline struct Start {
    Start() {
        channel = new Channel;
        channel->receive();  // that the program is there
        for (int signum : {SIGABRT, SIGSEGV, SIGFPE}) signal(signum, stopped);
        on_exit([](int status, void *) { status ? end("failed", "the tests ended with another exit code than 0") : end("passed", ""); }, nullptr);
    }
} start;

struct Value {
    std::string text;
    template <class T>
    T as() const {
        Reader from{text};
        return read_value<T>(from);
    }
    template <class T>
    operator T() const { return as<T>(); }
};
template <class T>
struct Plain { using type = T; };
template <size_t N>
struct Plain<char[N]> { using type = std::string; };
template <>
struct Plain<const char *> { using type = std::string; };
template <>
struct Plain<std::nullopt_t> { using type = std::optional<int>; };
template <class T>
using plain = typename Plain<std::remove_cvref_t<T>>::type;

// What cannot be read as the expected type is not equal to it.
template <class T>
bool equal(const Value &value, const T &expected) {
    try {
        return value.as<plain<T>>() == expected;
    } catch (const std::exception &) {
        return false;
    }
}
template <class T>
bool operator==(const Value &value, const T &expected) { return equal(value, expected); }
template <class T>
bool operator!=(const Value &value, const T &expected) { return !equal(value, expected); }
template <class T>
    requires std::is_arithmetic_v<T>
auto operator-(const Value &value, T expected) { return value.as<T>() - expected; }
template <class T>
    requires std::is_arithmetic_v<T>
bool operator<(const Value &value, T bound) { return value.as<T>() < bound; }
template <class T>
    requires std::is_arithmetic_v<T>
bool operator>(const Value &value, T bound) { return value.as<T>() > bound; }

struct Function {
    const char *name;
    template <class... A>
    Value operator()(const A &...given) const {
        std::string request = ">{\"do\":\"path\",\"name\":";
        write_value(request, name);
        request += ",\"arguments\":[";
        size_t i = 0;
        ((i++ ? (void)(request += ',') : (void)0, write_value(request, given)), ...);
        channel->send(request + "]}");
        std::string reply = channel->receive();
        const std::string head = "{\"value\":";
        raised = reply.compare(0, head.size(), head) != 0;
        if (raised) throw std::runtime_error(reply);
        return {reply.substr(head.size(), reply.size() - head.size() - 1)};
    }
};

}  // namespace perilune
