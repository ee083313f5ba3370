"""The words of the status page, in English and Chinese, and which of the two a browser wants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

LANGUAGES: Final = ("en", "zh")

_ENGLISH: Final = {
    "title": "nitroproxy",
    "pass": "pass",
    "warn": "WARN",
    "fail": "FAIL",
    "unknown": "unknown",
    "well": "Every layer is well: a request goes from this host through the enclave to the internet.",
    "starting": "The daemon has just started: nothing has been examined yet.",
    "is_fail": "fails",
    "is_warn": "warns",
    "stale": "What follows is {age} old: the daemon does not keep up, or stood still.",
    "reload_host": "The host daemon did not take its new configuration: the old one is in force. See its log.",
    "reload_enclave": "The enclave daemon did not take its new configuration: the old one is in force. See its log.",
    "layers": "Is every layer well?",
    "before": "before: {status} for {time}",
    "traffic": "Traffic, last 15 minutes",
    "legend_gateway": "gateway",
    "legend_enclave": "enclave",
    "rate": "requests a second",
    "failed": "answered with 500 and above",
    "slow": "time of a request, 99 of 100",
    "connections": "connections",
    "most": "most {value}",
    "half": "half in {value}",
    "ago": "15 min ago",
    "now": "now",
    "chart": "{what}: at the gateway now {gateway}, in the enclave now {enclave}",
    "hops": "Since the start of each daemon",
    "hop": "hop",
    "requests": "requests",
    "left": "left",
    "under_way": "under way",
    "median": "half in",
    "p99": "99 % in",
    "in": "in",
    "out": "out",
    "refused": "refused",
    "nitroproxy-host": "gateway",
    "nitroproxy-enclave": "enclave",
    "nitroproxy-relay": "relay",
    "nitroproxy-logs": "log listener",
    "nitroproxy-health": "health listener",
    "nitroproxy-ingress": "from outside",
    "host": "host",
    "enclave": "enclave",
    "failures": "Latest failures",
    "no_failures": "None since the start.",
    "when": "when",
    "error": "error",
    "found_by": "found by",
    "destination": "destination",
    "times": "times",
    "id": "request id",
    "follow": "{command} shows one on its whole way.",
    "room": "Room left",
    "room_connections": "connections, {where}",
    "room_descriptors": "descriptors, {where}",
    "room_memory": "memory, {where}",
    "room_lag": "timers late, {where}",
    "of": "{used} of {most}",
    "lines_lost": "log lines lost, {where}",
    "configuration": "Configuration that differs from the defaults",
    "no_configuration": "All keys of the host's configuration have their defaults.",
    "key": "key",
    "value": "value",
    "from": "from",
    "of_host": "This is the host's; the enclave has its own, in its image.",
    "refreshed": "refreshed every 10 s",
    "paused": "paused",
    "pause": "pause",
    "resume": "refresh every 10 s",
    "other": "中文",
    "up": "up {time}",
    "down": "down",
    "seen": "seen {time} UTC",
    "ago_s": "{time} ago",
}

_CHINESE: Final = {
    "title": "nitroproxy",
    "pass": "正常",
    "warn": "警告",
    "fail": "故障",
    "unknown": "未知",
    "well": "各层均正常：请求可以从宿主机经 enclave 到达互联网。",
    "starting": "守护进程刚刚启动，尚未检查任何一层。",
    "is_fail": "故障",
    "is_warn": "警告",
    "stale": "以下数据是 {age}前的：守护进程跟不上负载，或曾停顿。",
    "reload_host": "宿主机守护进程未接受新配置，旧配置仍然生效。原因见其日志。",
    "reload_enclave": "enclave 守护进程未接受新配置，旧配置仍然生效。原因见其日志。",
    "layers": "各层是否正常？",
    "before": "此前：{status}，持续 {time}",
    "traffic": "最近 15 分钟的流量",
    "legend_gateway": "网关",
    "legend_enclave": "enclave",
    "rate": "每秒请求数",
    "failed": "应答为 500 及以上的比例",
    "slow": "请求耗时，99% 不超过",
    "connections": "连接数",
    "most": "最高 {value}",
    "half": "半数不超过 {value}",
    "ago": "15 分钟前",
    "now": "现在",
    "chart": "{what}：网关当前 {gateway}，enclave 当前 {enclave}",
    "hops": "自各守护进程启动以来",
    "hop": "节点",
    "requests": "请求",
    "left": "已离开",
    "under_way": "进行中",
    "median": "半数耗时",
    "p99": "99% 耗时",
    "in": "收到",
    "out": "发出",
    "refused": "拒绝连接",
    "nitroproxy-host": "网关",
    "nitroproxy-enclave": "enclave",
    "nitroproxy-relay": "中继",
    "nitroproxy-logs": "日志监听",
    "nitroproxy-health": "健康监听",
    "nitroproxy-ingress": "来自外部",
    "host": "宿主机",
    "enclave": "enclave",
    "failures": "最近的失败",
    "no_failures": "启动以来没有失败。",
    "when": "时间",
    "error": "错误",
    "found_by": "发现者",
    "destination": "目标",
    "times": "次数",
    "id": "请求 id",
    "follow": "{command} 显示一个请求的全过程。",
    "room": "剩余容量",
    "room_connections": "连接，{where}",
    "room_descriptors": "文件描述符，{where}",
    "room_memory": "内存，{where}",
    "room_lag": "定时器延迟，{where}",
    "of": "{used} / {most}",
    "lines_lost": "丢失的日志行，{where}",
    "configuration": "与默认值不同的配置",
    "no_configuration": "宿主机配置的所有键均为默认值。",
    "key": "键",
    "value": "值",
    "from": "来源",
    "of_host": "这是宿主机的配置；enclave 的配置在其镜像中。",
    "refreshed": "每 10 秒刷新",
    "paused": "已暂停",
    "pause": "暂停",
    "resume": "每 10 秒刷新",
    "other": "English",
    "up": "已运行 {time}",
    "down": "未运行",
    "seen": "更新于 {time} UTC",
    "ago_s": "{time}前",
}

WORDS: Final[Mapping[str, Mapping[str, str]]] = {"en": _ENGLISH, "zh": _CHINESE}

_UNITS: Final[Mapping[str, tuple[str, str, str, str]]] = {
    "en": ("\N{NO-BREAK SPACE}d", "\N{NO-BREAK SPACE}h", "\N{NO-BREAK SPACE}min", "\N{NO-BREAK SPACE}s"),
    "zh": ("\N{NO-BREAK SPACE}天", "\N{NO-BREAK SPACE}小时", "\N{NO-BREAK SPACE}分钟", "\N{NO-BREAK SPACE}秒"),
}


def duration(seconds: float, language: str) -> str:
    """A time in its two largest units."""
    whole = max(int(seconds), 0)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    parts = [f"{part}{unit}" for part, unit in zip((days, hours, minutes, whole % 60), _UNITS[language], strict=True)]
    first = next((index for index, part in enumerate((days, hours, minutes)) if part), 3)
    return "\N{NO-BREAK SPACE}".join(parts[first : first + 2])


def wanted(given: str, accept: str) -> str:
    """The language to answer in.

    :param given: the parameter ``lang``; empty if there is none.
    :param accept: Accept-Language (RFC 9110 section 12.5.4); the first of ours with the highest weight counts.
    """
    if given in LANGUAGES:
        return given
    best, weight = "en", 0.0
    for item in accept[:512].split(","):
        tag, _, parameters = item.strip().partition(";")
        language = tag.strip().lower().partition("-")[0]
        if language in LANGUAGES and (quality := _quality(parameters)) > weight:
            best, weight = language, quality
    return best


def _quality(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return min(max(float(value), 0.0), 1.0)
    except ValueError:
        return 0.0
