"""What a surveyed set is good for, and what to mend: plain words, each with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from calotype.images.settings import PictureConfig
from calotype.images.survey import LONG_WORDS

FEW, SOME, MANY, PLENTY = 20, 200, 2_000, 20_000

_SIZES = (32, 64, 128, 256)


@dataclass(frozen=True)
class Advice:
    """Something worth mending, and the action or the option that does it."""

    what: str
    action: str


def good_for(found: dict[str, Any]) -> str:
    """In a sentence, what can be expected of a model trained on this set alone."""
    trained = found["split"]["train"]
    if trained < FEW:
        return f"{trained} pictures: a try of the machinery. A model can only learn them by heart."
    asked = {(True, True): "by prompt or class", (True, False): "by prompt", (False, True): "by class"}
    how = asked.get((bool(found["captions"]["count"]), bool(found["classes"]["count"])), "without being asked for one")
    made = f"makes pictures {how}"
    if trained < SOME:
        return f"{trained} pictures: fine-tuning a model you have (--from MODEL). Alone they are soon learnt by heart."
    if trained < MANY:
        return f"{trained:,} pictures: a small model of one kind of thing, that {made}."
    if trained < PLENTY:
        return f"{trained:,} pictures: a small model with some variety, that {made}."
    return f"{trained:,} pictures: a model with variety of its own, that {made}; more time will pay."


def to_mend(found: dict[str, Any], config: PictureConfig) -> list[Advice]:
    """What stands in the way of a good model, the gravest first."""
    return [*_files(found, config), *_amount(found), *_sizes(found, config), *_words(found), *_looks(found)]


def _files(found: dict[str, Any], config: PictureConfig) -> list[Advice]:
    files, copies, advice = found["files"], found["copies"], []
    refused = files["refused"]
    if config.is_stopped_by(refused, files["all"]):
        most = f"{config.max_refused:.0%}"
        advice.append(
            Advice(
                f"{refused:,} of {files['all']:,} files cannot be read; training stops at more than {most}",
                f"mend or remove them, or allow it: --set data.max_refused={min(1, refused / files['all'] + 0.01):.2f}",
            )
        )
    elif refused:
        advice.append(
            Advice(f"{refused:,} files cannot be read and are left out", "mend them, or leave it: nothing stops")
        )
    kept = copies["equal"] + copies["near"] - copies["dropped"]
    if kept > 0.01 * files["readable"]:
        which = "drop-near" if copies["near"] else "drop-exact"
        advice.append(
            Advice(f"{kept:,} pictures are copies of others, and weigh double", f"--set data.duplicates={which}")
        )
    elif copies["across_split"]:
        advice.append(
            Advice(
                f"{copies['across_split']:,} copies have their like on the other side of the split, "
                "so held-out figures flatter a little",
                "--set data.duplicates=drop-near",
            )
        )
    return advice


def _amount(found: dict[str, Any]) -> list[Advice]:
    advice, classes = [], found["classes"]
    if found["split"]["train"] < SOME:
        advice.append(Advice("few pictures", "add more of the same kind: from some hundreds on a model can vary them"))
    counts = list(classes["pictures"].items())
    if len(counts) > 1:
        (large, most), (small, least) = counts[0], counts[-1]
        if most > 10 * least:
            advice.append(
                Advice(
                    f"classes are unequal: '{large}' has {most:,} pictures, '{small}' {least:,}",
                    f"add pictures of '{small}', or expect it to be drawn poorly",
                )
            )
    if classes["count"] and classes["unlabelled"]:
        advice.append(
            Advice(
                f"{classes['unlabelled']:,} pictures have no class",
                "put them in their class's folder, or take them out",
            )
        )
    return advice


def _sizes(found: dict[str, Any], config: PictureConfig) -> list[Advice]:
    advice, originals, size = [], found["originals"], found["size"]
    files = found["files"]["readable"] - found["copies"]["dropped"]
    side = originals["shorter_side"]
    if originals["smaller"] > 0.1 * files:
        fitting = [known for known in _SIZES if known <= side["low"] and known < size]
        action = f"--size {fitting[-1]}" if fitting else "use larger originals"
        advice.append(Advice(f"{originals['smaller']:,} files are smaller than {size} px and are enlarged", action))
    larger = [known for known in _SIZES if known <= side["low"] and known > size]
    if larger:
        times = (larger[0] / size) ** 2
        advice.append(
            Advice(
                f"the files have more detail than {size} px show",
                f"--size {larger[0]}, which takes about {times:.2g} times as long",
            )
        )
    if originals["elongated"] > 0.2 * files and config.crop == "centre":
        advice.append(
            Advice(
                f"{originals['elongated']:,} files are at least twice as long as wide: only their middle is seen",
                "--set data.crop=random --set data.crops=3",
            )
        )
    return advice


def _words(found: dict[str, Any]) -> list[Advice]:
    advice, captions = [], found["captions"]
    if not captions["count"]:
        if not found["classes"]["count"]:
            advice.append(
                Advice(
                    "neither captions nor classes: pictures cannot be asked for",
                    "put a .txt beside each picture, or sort them into a folder per class",
                )
            )
        return advice
    if captions["missing"]:
        advice.append(Advice(f"{captions['missing']:,} pictures have no caption", "caption them too, or take them out"))
    caption, times = captions["most_frequent"]
    if captions["distinct"] == 1 and captions["count"] > 1:
        advice.append(Advice(f"all captions are the same ('{caption}')", "say what is different, or leave them out"))
    elif times > 0.3 * captions["count"] and captions["count"] >= FEW:
        advice.append(Advice(f"{times:,} captions are the same ('{caption}')", "say what is different between them"))
    if captions["too_long"]:
        advice.append(
            Advice(
                f"{captions['too_long']:,} captions have more than {LONG_WORDS} words: what comes later is not read",
                "say first what matters most",
            )
        )
    return advice


def _looks(found: dict[str, Any]) -> list[Advice]:
    advice, colour, total = [], found["colour"], found["pictures"]
    if 0.05 * total < colour["grey"] < 0.95 * total:
        advice.append(
            Advice(
                f"{colour['grey']:,} of {total:,} pictures are grey: the model draws grey ones as often",
                "take them out, or say 'black and white' in their captions",
            )
        )
    if colour["flat"]:
        names = ", ".join(colour["examples"]["flat"][:2])
        advice.append(
            Advice(f"{colour['flat']:,} pictures show a single shade ({names})", "look whether they belong to the set")
        )
    return advice
