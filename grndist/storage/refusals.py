"""What a storage library's error means, as one message without secrets."""

import re

from grndist.storage.place import StorageError

NO_BUCKET = r"NoSuchBucket|bucket does not exist|ContainerNotFound"
# The first that is found in the error's words decides: pattern, what is wrong, what to do.
MEANINGS = [
    (NO_BUCKET, "there is no such bucket", "create it, or correct its name"),
    (
        r"token request|(?i:credentials)|Missing \w*(Key|Id)|Account must be specified",
        "no credentials were found, or they could not be renewed",
        "put them where the cloud's own tools look for them (S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
        "AWS_PROFILE; GCS: GOOGLE_APPLICATION_CREDENTIALS; Azure: AZURE_STORAGE_ACCOUNT_NAME and its key)",
    ),
    (
        r"\b40[13]\b|PermissionDenied|Unauthenticated|PermissionError|Denied|Forbidden|InvalidAccessKeyId|ExpiredToken",
        "access was refused",
        "check that the credentials are valid and allow reading and writing there",
    ),
    (r"(?i)redirect|\b301\b", "the bucket lies in another region", "set AWS_REGION to the bucket's own"),
    (
        r"(?i)error sending request|connect|time-?d?[ -]?out|resolve|unreachable",
        "it does not answer",
        "check the network and, for a server of your own, AWS_ENDPOINT_URL",
    ),
]
OTHERWISE = "the storage failed", "try again; if it stays so, ask who runs it"


def refusal(url: str, error: Exception) -> StorageError:
    """The error of a place that cannot be used, for the user."""
    words = f"{type(error).__name__}: {_words(error)}"
    meaning = next(((what, remedy) for pattern, what, remedy in MEANINGS if re.search(pattern, words)), OTHERWISE)
    return StorageError(f"{url}: {meaning[0]} ({_detail(error)}); {meaning[1]}")


def is_no_bucket(error: Exception) -> bool:
    """Whether a file is missing because its whole bucket is."""
    return re.search(NO_BUCKET, _words(error)) is not None


def status(error: Exception) -> int:
    """The HTTP status that an error tells of, or 0."""
    found = re.search(r"status code: (\d+)", _words(error))
    return int(found[1]) if found else 0


def _words(error: Exception) -> str:
    """What the error says, without the names of files, which could be anything, and without a debugger's view."""
    text = str(error).partition("\n\nDebug source")[0]
    return re.sub(r"\w+://[^\s\"']+|(?<=location )\S+|<Key>.*?</Key>", "", text)


def _detail(error: Exception) -> str:
    """The few words of it that help: a server's answer is cut to its code, since it may repeat keys and signatures."""
    words = _words(error)
    answer = re.search(r"<Code>(\w+)</Code>", words) or re.search(r"status code: (\d+ [A-Za-z ]+)", words)
    if answer:
        return answer[1]
    if "error sending request" in words:
        return "no connection"
    plain = " ".join(words.partition("error: ")[2].split() or words.split()).strip(": \"'")
    return plain[:200] or type(error).__name__
