"""stub"""

PROFILES: dict = {}  # type: ignore


def profile(n, p):  # type: ignore
    return ""
