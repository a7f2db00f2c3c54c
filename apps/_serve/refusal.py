"""Why a request gets no answer, in TF Serving's codes."""

STATUS = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    # What TF Serving has no code for.
    "TOO_SLOW": 408,
    "TOO_LARGE": 413,
}


class Refusal(Exception):
    """A request that is not answered.

    Args:
        code: a key of `STATUS`, which gives the HTTP status.
        message: what the client reads as `error`.

    Example:
        >>> Refusal("NOT_FOUND", "Servable not found for request: Latest(pets)").status
        404
    """

    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.status = code, STATUS[code]


def shortened(value, longest=100):
    """Return what a value looks like, cut where it is long: requests may hold megabytes.

    Example:
        >>> shortened({"b64": 5})
        "{'b64': 5}"
    """
    if isinstance(value, list | dict):
        value = value if len(value) <= 5 and all(not isinstance(each, list | dict) for each in value) else "..."
    text = value[:longest] if isinstance(value, str) else repr(value)
    return text if len(text) < longest else text[:longest] + "..."
