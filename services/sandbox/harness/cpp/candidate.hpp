// Calls a function of the program for whoever holds the other end of the channel. There is no secret here.
#pragma once
#include "wire.hpp"

namespace perilune {

template <class Call, class... Given>
int answer_calls(Call call, std::tuple<Given...> *) {
    Channel channel;
    channel.send(R"({"names":{}})");
    for (;;) {
        std::string request = channel.receive(), reply;
        try {
            Reader from{request, request.find("\"arguments\":")};
            from.expect("\"arguments\":");
            auto given = read_value<std::tuple<Given...>>(from);
            reply = R"({"value":)";
            if constexpr (std::is_void_v<decltype(std::apply(call, given))>) {
                std::apply(call, given);
                write_value(reply, nullptr);
            } else {
                write_value(reply, std::apply(call, given));
            }
        } catch (const std::exception &error) {
            reply = R"({"raised":)";
            write_value(reply, std::string(error.what()));
        }
        channel.send(reply + "}");
    }
}

template <class R, class... A>
int serve(R (*function)(A...)) {
    return answer_calls([=](auto &...given) -> R { return function(static_cast<A>(given)...); }, (std::tuple<std::decay_t<A>...> *)nullptr);
}
template <class C, class R, class... A>
int serve(R (C::*method)(A...)) {
    return answer_calls([=](auto &...given) -> R { return (C().*method)(static_cast<A>(given)...); }, (std::tuple<std::decay_t<A>...> *)nullptr);
}
template <class C, class R, class... A>
int serve(R (C::*method)(A...) const) {
    return answer_calls([=](auto &...given) -> R { return (C().*method)(static_cast<A>(given)...); }, (std::tuple<std::decay_t<A>...> *)nullptr);
}

}  // namespace perilune
