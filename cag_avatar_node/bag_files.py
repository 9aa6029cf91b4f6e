"""rosbag2 bags of expression codes, through the pure-Python library rosbags: no ROS is needed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from cag_avatar.errors import InputError, MissingDependencyError

__all__ = [
    "FACE_EXPRESSION",
    "BagWriter",
    "Storage",
    "expression_topic",
    "face_expression_definition",
    "make_typestore",
    "open_bag_writer",
    "read_messages",
]

Storage = Literal["mcap", "sqlite3"]

FACE_EXPRESSION = "cag_avatar_msgs/msg/FaceExpression"
#: rosbag2's format since jazzy.
_FORMAT_VERSION: Literal[9] = 9


def face_expression_definition() -> str:
    """The text of FaceExpression.msg, from the installed package."""
    return resources.files("cag_avatar_node").joinpath("FaceExpression.msg").read_text("utf-8")


def make_typestore(definitions: Mapping[str, str] | None = None) -> Any:
    """A rosbags type store that knows the common messages and FaceExpression.

    Args:
        definitions: message texts (with those that they contain) by type name, which take
            precedence over this package's own.

    Raises:
        MissingDependencyError: rosbags is not installed.
        InputError: a text that is no message definition.
    """
    _import_rosbags()
    from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore

    store = get_typestore(Stores.LATEST)
    texts = {**(definitions or {})}
    texts.setdefault(FACE_EXPRESSION, face_expression_definition())
    for name, text in texts.items():
        try:
            types = get_types_from_msg(text, name)
            store.register({key: value for key, value in types.items() if key not in store.types})
        except TypesysError as error:
            raise InputError(f"message definition of {name} cannot be read: {error}") from error
    return store


class BagWriter:
    """Writes serialized messages to a bag; see :func:`open_bag_writer`."""

    def __init__(self, writer: Any, store: Any) -> None:
        self._writer = writer
        self._store = store
        self._connections: dict[str, Any] = {}
        #: Messages written, by topic.
        self.counts: dict[str, int] = {}

    @property
    def store(self) -> Any:
        """The type store, for serialize_cdr()."""
        return self._store

    def add_topic(self, topic: str, type_name: str) -> None:
        """Announce a topic with a type such as ``sensor_msgs/msg/CameraInfo``.

        Raises:
            InputError: the type is unknown.
        """
        if type_name not in self._store.types:
            raise InputError(f"bag: topic {topic}: message type {type_name} is unknown")
        self._connections[topic] = self._writer.add_connection(
            topic, type_name, typestore=self._store
        )
        self.counts[topic] = 0

    def write(self, topic: str, time_ns: int, cdr: bytes | memoryview) -> None:
        """Write one message, serialized as CDR, received at ``time_ns``."""
        self._writer.write(self._connections[topic], time_ns, cdr)
        self.counts[topic] += 1


@contextmanager
def open_bag_writer(path: Path, storage: Storage = "mcap") -> Iterator[BagWriter]:
    """Write a new bag; it appears at ``path`` (a folder) when the block ends without an exception.

    Raises:
        MissingDependencyError: rosbags is not installed.
        InputError: there is something at the path, its folder cannot be written, or the storage is
            neither ``mcap`` nor ``sqlite3``.
    """
    _import_rosbags()
    from rosbags.rosbag2 import StoragePlugin, Writer

    if storage not in get_args(Storage):
        raise InputError(f"bag: storage '{storage}' is neither mcap nor sqlite3")
    if path.exists():
        raise InputError(f"bag {path} exists already: give another name, or remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise InputError(f"bag {path} cannot be written: {error.strerror}") from error
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    try:
        # The files within carry the folder's name.
        with Writer(
            temporary / path.name, version=_FORMAT_VERSION, storage_plugin=plugin
        ) as writer:
            yield BagWriter(writer, make_typestore())
        (temporary / path.name).rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def expression_topic(path: Path, topic: str = "") -> str:
    """The topic of a bag that holds FaceExpression messages.

    Args:
        path: the bag: its folder.
        topic: that is wanted; empty: the only one.

    Raises:
        MissingDependencyError: rosbags is not installed.
        InputError: no bag, no such topic, or several where none is wanted.
    """
    with _reading(path) as reader:
        found = sorted({c.topic for c in reader.connections if c.msgtype == FACE_EXPRESSION})
        every = sorted({c.topic for c in reader.connections})
    if not found:
        raise InputError(
            f"bag {path} has no topic of type {FACE_EXPRESSION}, only {', '.join(every) or 'none'}"
        )
    if topic and topic not in found:
        raise InputError(f"bag {path} has no expressions on '{topic}': give {' or '.join(found)}")
    if not topic and len(found) > 1:
        raise InputError(f"bag {path} has expressions on several topics: give {' or '.join(found)}")
    return topic or found[0]


def read_messages(path: Path, topic: str) -> Iterator[tuple[int, Any]]:
    """Messages of a topic in the order in which they were received: (time in ns, message).

    The bag's own definition of the message is used where it has one.

    Raises:
        MissingDependencyError: rosbags is not installed.
        InputError: no bag, or a message that cannot be read.
    """
    with _reading(path) as reader:
        connections = [c for c in reader.connections if c.topic == topic]
        texts = {c.msgtype: c.msgdef.data for c in connections if c.msgdef.format.name == "MSG"}
        store = make_typestore({name: text for name, text in texts.items() if text.strip()})
        for number, (connection, time_ns, data) in enumerate(reader.messages(connections)):
            try:
                yield time_ns, store.deserialize_cdr(data, connection.msgtype)
            except GeneratorExit:
                raise
            except Exception as error:
                raise InputError(
                    f"bag {path}: message {number} of {topic} is not a {connection.msgtype} "
                    f"({error!r})"
                ) from error


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    _import_rosbags()
    from rosbags.rosbag2 import Reader, ReaderError

    if not path.is_dir():
        raise InputError(f"bag {path} does not exist: give the folder that holds metadata.yaml")
    with ExitStack() as stack:
        try:
            reader = stack.enter_context(Reader(path))
        except (ReaderError, OSError, ValueError) as error:
            raise InputError(f"bag {path} cannot be read: {error}") from error
        yield reader


def _import_rosbags() -> None:
    try:
        import rosbags.rosbag2  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "rosbags", "reading bags", "bags") from error
