"""Common ground of the lifecycle nodes: transitions, autostart, diagnostics and start-up."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from cag_avatar.errors import InputError
from cag_avatar_node.local_images import LocalImages, LocalTopic
from cag_avatar_node.node_health import Health, HealthPublisher
from cag_avatar_node.node_parameters import NodeParameter, declare_parameters

__all__ = ["ManagedNode", "run_managed_node", "run_managed_nodes"]

_AUTOSTART = NodeParameter(
    "autostart",
    True,
    "Configure and activate the node itself at start-up; false: wait for a lifecycle manager.",
)


class ManagedNode(LifecycleNode):
    """A lifecycle node whose subclass fills in four plain methods.

    Subclasses override :meth:`configure` (read parameters, load), :meth:`activate` (make
    publishers, subscriptions, threads), :meth:`deactivate` (undo activate), :meth:`cleanup` (undo
    configure) and :meth:`health`. ``configure`` and ``activate`` raise on failure, which becomes a
    FAILURE of the transition and a log line, never an exception on the ROS thread.

    Args:
        name: of the node.
        parameters: that it declares.
        local_images: the same for nodes of one process that hand images to each other.
        options: of rclpy's node.
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[NodeParameter],
        local_images: LocalImages | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self._local_images = local_images
        self._configured = False
        self._active = False
        self._exceptions = 0
        self._switches = {p.name: p for p in parameters if p.is_switch}
        declare_parameters(self, (_AUTOSTART, *parameters), lambda: self._configured)
        self._health_publisher = HealthPublisher(self, self._health_in_any_state)

    # What a subclass fills in.

    def configure(self) -> None:
        """Read the parameters and load what they name. Raises InputError on bad ones."""

    def activate(self) -> None:
        """Make publishers, subscriptions and threads."""

    def deactivate(self) -> None:
        """Undo :meth:`activate`; also called after one that failed half-way."""

    def cleanup(self) -> None:
        """Undo :meth:`configure`; also called after one that failed half-way."""

    def health(self) -> Health:
        """The state for /diagnostics while the node is active."""
        return Health()

    # Conveniences for subclasses.

    def value(self, name: str) -> Any:
        """Value of a parameter."""
        value = self.get_parameter(name).value
        switch = self._switches.get(name)
        return value if switch is None else switch.read(value)

    def local_topic(self, name: str) -> LocalTopic | None:
        """A topic inside this process; None where the node is not composed with others."""
        shared = self._local_images
        return None if shared is None else shared.topic(self.resolve_topic_name(name))

    def seconds(self) -> float:
        """The node's clock, in seconds."""
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def report_exception(self, error: Exception) -> None:
        """Log and count an exception of a worker thread; quiet while ROS shuts down."""
        if self.context.ok():
            self._exceptions += 1
            trace = "".join(traceback.format_exception(error))
            self.get_logger().error(f"{error}\n{trace}", throttle_duration_sec=5.0)

    # Lifecycle.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Configure; FAILURE, with a line in the log, when a parameter or a file is bad."""
        result = self._attempt("configure", self.configure, self.cleanup)
        self._configured = result == TransitionCallbackReturn.SUCCESS
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Activate; FAILURE when an entity cannot be made."""
        result = self._attempt("activate", self.activate, self.deactivate)
        self._active = result == TransitionCallbackReturn.SUCCESS
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the work; what was loaded stays."""
        self._active = False
        return self._attempt("deactivate", self.deactivate, None)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free what was loaded."""
        self._configured = False
        return self._attempt("clean up", self.cleanup, None)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything: the node is unconfigured afterwards and can be configured again."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Stop the work and free what was loaded, from any state."""
        if self._active:
            self._active = False
            self._attempt("deactivate", self.deactivate, None)
        if self._configured:
            self._configured = False
            self._attempt("clean up", self.cleanup, None)

    def _attempt(
        self, verb: str, action: Callable[[], None], undo: Callable[[], None] | None
    ) -> TransitionCallbackReturn:
        try:
            action()
            return TransitionCallbackReturn.SUCCESS
        except InputError as error:
            self.get_logger().error(f"cannot {verb}: {error}")
        except Exception as error:
            if self.context.ok():
                self.get_logger().error(f"cannot {verb}: {error!r}\n{traceback.format_exc()}")
        if undo is not None:
            try:
                undo()
            except Exception as error:
                self.get_logger().error(f"undoing it failed as well: {error!r}")
        return TransitionCallbackReturn.FAILURE

    def _health_in_any_state(self) -> Health:
        if self._active:
            health = self.health()
            if self._exceptions:
                health.values["exceptions"] = str(self._exceptions)
                health.worsen(DiagnosticStatus.ERROR, f"{self._exceptions} exceptions: see the log")
            return health
        return Health(message="inactive" if self._configured else "not configured")


def run_managed_node(
    make: Callable[[], ManagedNode],
    args: Sequence[str] | None = None,
) -> int:
    """Run a node until it is told to stop; see :func:`run_managed_nodes`."""
    return run_managed_nodes([make], args)


def run_managed_nodes(
    makers: Sequence[Callable[[], ManagedNode]],
    args: Sequence[str] | None = None,
) -> int:
    """Run nodes of one process, each with an executor of its own, until they are told to stop.

    Args:
        makers: make the nodes, which are started in this order.
        args: command line with ``--ros-args``; default: the process's.

    Returns:
        Exit code: 0 after SIGINT or SIGTERM, 2 when a parameter is bad or autostart fails.
    """
    interrupt = _Interrupt()
    rclpy.init(args=None if args is None else list(args))
    nodes: list[ManagedNode] = []
    spinning: list[_Spinning] = []
    try:
        try:
            nodes.extend(make() for make in makers)
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        for node in nodes:
            if node.value("autostart") and not _started(node):
                # Loading takes seconds: the user may have given up meanwhile, which is no failure.
                return 2 if node.context.ok() else 0
        interrupt.raises = False
        spinning.extend(_Spinning(node) for node in nodes)
        for others in spinning[1:]:
            others.start(spinning[0].stop)
        spinning[0].spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        # rclpy's executor may meet the context that a signal has just shut down.
        if rclpy.ok():
            raise
    finally:
        for one in spinning:
            one.end()
        for node in reversed(nodes):
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()
        interrupt.restore()
    for one in spinning:
        if one.error is not None:
            raise one.error
    return 0


def _started(node: ManagedNode) -> bool:
    success = TransitionCallbackReturn.SUCCESS
    return (
        node.trigger_configure() == success
        and node.context.ok()
        and node.trigger_activate() == success
    )


class _Spinning:
    """A node's executor, in this thread or in one of its own."""

    def __init__(self, node: ManagedNode) -> None:
        self.error: Exception | None = None
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._name = node.get_name()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def spin(self) -> None:
        """Until ROS shuts down or it is stopped."""
        while rclpy.ok() and not self._stopped.is_set():
            self._executor.spin_once()

    def start(self, failed: Callable[[], None]) -> None:
        """Spin in a thread; ``failed`` is called when an exception ends it."""
        self._thread = threading.Thread(
            target=self._guard, args=(failed,), name=self._name, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Spin no more; from any thread."""
        self._stopped.set()
        self._executor.wake()

    def end(self) -> None:
        """Stop, and free the executor: the garbage collector may do it in a bad order."""
        if not self._stopped.is_set():
            self.stop()
        if self._thread is not None:
            self._thread.join(5.0)
        self._executor.shutdown()

    def _guard(self, failed: Callable[[], None]) -> None:
        try:
            self.spin()
        except ExternalShutdownException:
            pass
        except Exception as error:
            if rclpy.ok():
                self.error = error
                failed()


class _Interrupt:
    """What SIGINT does besides rclpy's own handler, which ends the spinning and calls this one.

    A KeyboardInterrupt is right while a model loads. While the node spins it could be raised in the
    middle of a message's conversion, which rclpy turns into a RuntimeError.
    """

    def __init__(self) -> None:
        self.raises = True
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._previous = signal.signal(signal.SIGINT, self._handle)

    def restore(self) -> None:
        """Put the handler back that was there before."""
        if self._main:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.raises:
            raise KeyboardInterrupt
