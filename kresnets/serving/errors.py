"""Why a request gets no answer, in TF Serving's codes."""

STATUS = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "TOO_SLOW": 408,  # for this and the next one TF Serving has no code
    "TOO_LARGE": 413,
}


class Refusal(Exception):
    """A request that is not answered: what the client reads as `error`, and a key of `STATUS`."""

    def __init__(self, message: str, code: str = "INVALID_ARGUMENT"):
        super().__init__(message)
        self.code, self.status = code, STATUS[code]


def demand(condition: object, message: str, code: str = "INVALID_ARGUMENT") -> None:
    """Raise a `Refusal` unless the condition holds."""
    if not condition:
        raise Refusal(message, code)
