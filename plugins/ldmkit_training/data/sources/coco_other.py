"""Recognises other annotation formats, so that they are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def other_format(content: Any) -> str | None:
    """The name of the format of an annotation file that is not COCO's, as far as it is known."""
    if isinstance(content, list):
        if content and isinstance(content[0], Mapping) and {"image_id", "category_id"} <= content[0].keys():
            return "a list of COCO results (detections), without the pictures and categories that they are of"
        return "a list"
    if not isinstance(content, Mapping):
        return None
    keys = content.keys()
    if {"shapes", "imagePath"} <= keys:
        return "a file of labelme, about one picture"
    if "_via_img_metadata" in keys:
        return "a project of VIA"
    if content and all(
        isinstance(value, Mapping) and {"filename", "regions"} <= value.keys() for value in content.values()
    ):
        return "an export of VIA"
    if {"outputs", "path"} <= keys or {"asset", "regions"} <= keys:
        return "a file of another labelling tool"
    annotations = content.get("annotations")
    if isinstance(annotations, list) and annotations and isinstance(annotations[0], Mapping):
        if "caption" in annotations[0]:
            return "COCO's captions (captions: FILE reads them)"
        if "question_id" in annotations[0]:
            return "a file of questions and answers"
        if "segments_info" in annotations[0]:
            return "COCO's panoptic annotations"
    return None
