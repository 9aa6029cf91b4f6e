"""Images between nodes of one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from cag_avatar_node.image_conversion import image_to_rgb
from cag_avatar_node.image_input import RAW_TOPIC, AnyImage, ImageInput
from cag_avatar_node.image_sink import ImageSink
from cag_avatar_node.local_images import LocalImage, LocalImages
from cag_avatar_node.qos import IMAGE_QOS
from cag_avatar_node.video_source import VideoSource

NAME = "/" + RAW_TOPIC


@pytest.fixture
def picture() -> Any:
    return np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def test_reads_as_a_message_does(picture: Any) -> None:
    image = LocalImage.of(picture, "bgr8", Header(frame_id="camera"))
    np.testing.assert_array_equal(image_to_rgb(image), picture[..., ::-1])
    assert (image.height, image.width, image.step) == (4, 6, 18)
    assert np.shares_memory(np.frombuffer(image.data, np.uint8), picture)


def test_listeners_come_and_go(picture: Any) -> None:
    topic = LocalImages().topic(NAME)
    image = LocalImage.of(picture, "rgb8", Header())
    seen: list[LocalImage] = []
    topic.publish(image)
    topic.listen(seen.append)
    topic.publish(image)
    topic.leave(seen.append)
    topic.publish(image)
    assert seen == [image]
    assert topic.listeners == 0


def test_the_array_itself_is_handed_over_and_others_get_a_message(
    world: Any, wait_until: Callable[..., None], picture: Any
) -> None:
    topic = LocalImages().topic(NAME)
    sink = ImageSink(world.node, RAW_TOPIC, IMAGE_QOS, "rgb8", "camera", topic)
    assert topic.has_source
    assert not sink.has_subscribers
    here: list[LocalImage] = []
    topic.listen(here.append)
    assert sink.subscribers == 1
    sink.publish(picture, Time(sec=3))
    assert np.shares_memory(np.frombuffer(here[0].data, np.uint8), picture)
    assert (here[0].header.stamp.sec, here[0].header.frame_id) == (3, "camera")
    there = world.listen(Image, NAME, IMAGE_QOS)
    wait_until(lambda: sink.subscribers == 2, "a subscriber")
    sink.publish(picture, Time(sec=4))
    wait_until(lambda: there, "a message")
    assert bytes(there[0].data) == picture.tobytes()
    assert len(here) == 2
    sink.destroy()
    assert not topic.has_source


def test_an_input_takes_local_images_while_there_is_a_source_and_the_topic_otherwise(
    world: Any, wait_until: Callable[..., None], picture: Any
) -> None:
    topic = LocalImages().topic(NAME)
    seen: list[AnyImage] = []
    taken = ImageInput(world.node, "auto", 5.0, seen.append, lambda: True, topic)
    assert taken.current == "raw"
    sink = ImageSink(world.node, RAW_TOPIC, IMAGE_QOS, "rgb8", "camera", topic)
    wait_until(lambda: taken.current == "local", "the local source")
    sink.publish(picture, Time(sec=1))
    assert isinstance(seen[-1], LocalImage)
    assert len(seen) == 1
    sink.destroy()
    wait_until(lambda: taken.current == "raw", "the topic")
    assert topic.listeners == 0
    publisher = world.publisher(Image, NAME, IMAGE_QOS)
    publisher.publish(Image(height=1, width=1, step=3, encoding="rgb8", data=bytes(3)))
    wait_until(lambda: isinstance(seen[-1], Image), "a message")
    taken.destroy()


def test_a_source_plays_for_a_local_listener_alone(
    world: Any, wait_until: Callable[..., None], numbered_video: Path
) -> None:
    shared = LocalImages()
    seen: list[LocalImage] = []

    def make(**options: Any) -> VideoSource:
        return VideoSource(local_images=shared, **options)

    node = world.start(make, video=str(numbered_video))
    shared.topic(NAME).listen(seen.append)
    wait_until(lambda: len(seen) > 3, "images")
    assert not np.shares_memory(
        np.frombuffer(seen[0].data, np.uint8), np.frombuffer(seen[1].data, np.uint8)
    )
    stamps = [image.header.stamp.sec * 10**9 + image.header.stamp.nanosec for image in seen]
    assert stamps == sorted(set(stamps))
    assert node.count_subscribers(NAME) == 0
