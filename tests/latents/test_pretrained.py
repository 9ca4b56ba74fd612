"""A diffusers VAE as first stage: the numbers that diffusers' own loader gives, and one clear line for what is none."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from calotype.core.errors import CorruptFileError, UserError
from calotype.latents import Codec, LatentStatistics, encode_pictures, pretrained
from calotype.latents.pretrained import PretrainedVAE, PretrainedVAEConfig, load_pretrained_vae

WEIGHTS = "diffusion_pytorch_model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make(folder: Path, **settings: Any) -> Path:
    """Save a tiny AutoencoderKL, f4 with 3 latent channels unless told; all weights random, so that each one counts."""
    from diffusers import AutoencoderKL

    levels = len(settings.setdefault("block_out_channels", (4, 8, 8)))
    settings = {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "latent_channels": 3,
        "norm_num_groups": 2,
        "scaling_factor": 0.5,
        "shift_factor": 0.25,
        **settings,
    }
    generator = torch.Generator().manual_seed(1)
    autoencoder = AutoencoderKL(**settings)
    for parameter in autoencoder.parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    autoencoder.save_pretrained(folder)
    return folder


def rebuilt(description: dict[str, Any]) -> PretrainedVAE:
    """The empty module that a bundle's recipe describes."""
    return PretrainedVAE(PretrainedVAEConfig.parse(description, "pretrained VAE"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("vae") / "tiny")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the saved folder that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "spoilt"))


def theirs(folder: Path) -> Any:
    """What diffusers itself reads from the folder: the independent reference."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)


def pictures(number: int = 2, height: int = 16, width: int = 24) -> Tensor:
    return torch.rand(number, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def edit(folder: Path, **changes: Any) -> None:
    """Change settings in the folder's config.json; None takes one out."""
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


@torch.no_grad()
def assert_same(vae: PretrainedVAE, autoencoder: Any) -> None:
    """Mean, log-variance and decoded picture agree with diffusers' raw ones: no scaling_factor anywhere."""
    images = pictures()
    posterior = autoencoder.encode(images).latent_dist
    mean, logvar = vae.encode(images)
    for ours, others in (
        (mean, posterior.mean),
        (logvar, posterior.logvar),
        (vae.decode(mean), autoencoder.decode(mean).sample),
    ):
        torch.testing.assert_close(ours, others, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(mean, logvar)


def test_agrees_with_diffusers(saved: Path) -> None:
    vae = load_pretrained_vae(saved)
    assert (vae.config.latent_channels, vae.config.downsampling, vae.config.source) == (3, 4, "tiny")
    assert_same(vae, theirs(saved))
    mean, logvar = vae.encode(pictures())
    assert mean.shape == logvar.shape == (2, 3, 4, 6)
    assert vae.decode(mean).shape == (2, 3, 16, 24)
    assert not vae.training
    assert not any(parameter.requires_grad for parameter in vae.parameters())


def test_sides_must_be_divisible(saved: Path) -> None:
    vae = load_pretrained_vae(str(saved))
    for height, width in ((16, 18), (18, 16)):
        with pytest.raises(ValueError, match=rf"divisible by 4 on both sides, got \({height}, {width}\)"):
            vae.encode(pictures(1, height, width))


@pytest.mark.parametrize(("pixels", "sizes"), [(2 * 16 * 24, [2, 2, 1]), (16 * 24 - 1, [1] * 5), (10**6, [5])])
def test_memory_is_bounded(saved: Path, monkeypatch: pytest.MonkeyPatch, pixels: int, sizes: list[int]) -> None:
    """At most so many pixels at once, at least one picture, whatever the batch; the result does not depend on it."""
    vae, images = load_pretrained_vae(saved), pictures(5)
    whole = theirs(saved)
    seen: dict[str, list[int]] = {"encoder": [], "decoder": []}
    for part, batches in seen.items():
        hook = lambda _module, given, _gave, batches=batches: batches.append(len(given[0]))  # noqa: E731
        getattr(vae.autoencoder, part).register_forward_hook(hook)
    monkeypatch.setattr(pretrained, "PIXELS_AT_ONCE", pixels)
    mean, logvar = vae.encode(images)
    decoded = vae.decode(mean)
    assert seen == {"encoder": sizes, "decoder": sizes}
    posterior = whole.encode(images).latent_dist
    torch.testing.assert_close(mean, posterior.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logvar, posterior.logvar, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(decoded, whole.decode(mean).sample, rtol=1e-4, atol=1e-5)


def test_sixteen_pictures_of_128_pixels_at_once() -> None:
    parts = pretrained._parts(torch.zeros(40, 1), 128 * 128)
    assert [len(part) for part in parts] == [16, 16, 8]


def test_description_builds_it_again_without_the_folder(folder: Path) -> None:
    edit(folder, act_fn=None, use_quant_conv=None)  # an old config lacks what later became a setting
    vae = load_pretrained_vae(folder)
    expected = theirs(folder)
    shutil.rmtree(folder)
    words = json.dumps(vae.config.model_dump(mode="json"))
    again = rebuilt(json.loads(words))
    assert again.fingerprint != vae.fingerprint, "built empty"
    again.load_state_dict(vae.state_dict())
    assert again.fingerprint == vae.fingerprint
    assert again.config == vae.config
    assert json.dumps(again.config.model_dump(mode="json")) == words
    assert_same(again, expected)
    assert vae.config.source == "spoilt"
    assert str(folder.parent) not in words, "no path of this machine travels in a bundle"
    settings = vae.config.settings
    assert settings["scaling_factor"] == 0.5, "kept for an export"
    assert settings["use_quant_conv"] is True, "what diffusers left at its default is written down"


def test_fingerprint_is_of_the_weights(folder: Path) -> None:
    first, second = load_pretrained_vae(folder), load_pretrained_vae(folder)
    assert first.fingerprint == second.fingerprint
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / WEIGHTS).items()):
        digest.update(f"{name} torch.float32 {tuple(tensor.shape)}\n".encode() + tensor.numpy().tobytes())
    assert first.fingerprint == digest.hexdigest()
    codec = Codec(first, LatentStatistics(mean=(1.0,) * 3, std=(2.0,) * 3, bound=3.0), 16)
    assert codec.vae.fingerprint == second.fingerprint, "latent statistics are no part of it"
    weight = second.autoencoder.decoder.conv_out.weight.data
    weight[-1, -1, -1, -1] = torch.nextafter(weight[-1, -1, -1, -1], torch.tensor(9.0))
    assert second.fingerprint != first.fingerprint


def test_gradients_pass(saved: Path) -> None:
    images = pictures().requires_grad_()
    vae = load_pretrained_vae(saved)
    vae.decode(vae.encode(images)[0]).square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_codec_measures_its_latents(saved: Path) -> None:
    vae, images = load_pretrained_vae(saved), pictures(12)
    latents = encode_pictures(vae, lambda ids: images[ids], 12, torch.arange(12), mirrored=False, batch_size=5)
    codec = Codec(vae, latents.statistics, 16)
    assert codec.latent_shape == (3, 4, 4)
    x0 = codec.encode(images)
    torch.testing.assert_close(x0.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    spread = x0.var((0, 2, 3), unbiased=False) + (latents.std[0] / codec.std).square().mean((0, 2, 3))
    torch.testing.assert_close(spread, torch.ones(3), atol=1e-4, rtol=0)
    z_raw = theirs(saved).encode(images).latent_dist.mean
    torch.testing.assert_close(codec.decode(x0), theirs(saved).decode(z_raw).sample.clamp(-1, 1), atol=1e-4, rtol=1e-4)


def test_former_names_of_attention(folder: Path) -> None:
    """The Stable Diffusion VAEs are older than diffusers 0.15 and name their attention otherwise."""
    expected = theirs(folder)
    tensors = load_file(folder / WEIGHTS)
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        renamed = {name: name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.") for name in tensors}
        assert sum(name != former for name, former in renamed.items()) == 4, "weight and bias, encoder and decoder"
        tensors = {renamed[name]: tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / WEIGHTS)
    assert_same(load_pretrained_vae(folder), expected)


def test_half_precision_file_becomes_float32(folder: Path) -> None:
    halves = {name: tensor.half() for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(halves, folder / "diffusion_pytorch_model.fp16.safetensors")
    assert_same(load_pretrained_vae(folder), theirs(folder))  # the whole one is preferred
    (folder / WEIGHTS).unlink()
    vae = load_pretrained_vae(folder)
    assert {parameter.dtype for parameter in vae.parameters()} == {torch.float32}
    assert all(torch.equal(tensor, halves[name].float()) for name, tensor in vae.autoencoder.state_dict().items())


def test_home_is_known(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(saved.parent))
    assert load_pretrained_vae("~/tiny").config.source == "tiny"
    monkeypatch.chdir(saved)
    assert load_pretrained_vae(".").config.source == "tiny"


def test_vae_of_a_pipeline_folder(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "pipeline" / "vae")
    (tmp_path / "pipeline" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    vae = load_pretrained_vae(tmp_path / "pipeline")
    assert vae.config.source == "pipeline"
    assert vae.fingerprint == load_pretrained_vae(saved).fingerprint


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./nowhere", r"nowhere is neither a folder nor a hub id \(owner/name\): give a folder that diffusers'"),
        ("a/b/c", r"a/b/c is neither a folder nor a hub id"),
        ("nowhere", r"nowhere is neither a folder nor a hub id"),
        (__file__, r"test_pretrained.py is a file: give a folder"),
        (str(Path(__file__).parent), r"latents has no config.json: give a folder"),
    ],
)
def test_what_is_no_folder(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_pretrained_vae(name)


def test_relative_file_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "vae.ckpt").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"some/vae\.ckpt is a file"):
        load_pretrained_vae("some/vae.ckpt")


def truncate(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (truncate, CorruptFileError, r"model\.safetensors is not whole .*truncated"),
        (lambda f: (f / WEIGHTS).rename(f / "model.bin"), UserError, rf"has no {WEIGHTS}: save it again with safe"),
        (lambda f: (f / "config.json").write_text("{"), CorruptFileError, r"config\.json is not valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), UserError, r"config\.json describes no diffusers model"),
        (lambda f: (f / "config.json").write_text("{}"), UserError, r"config\.json describes no diffusers model"),
        (lambda f: edit(f, _class_name="AutoencoderTiny"), UserError, r"describes AutoencoderTiny: choose an Autoenc"),
        (lambda f: edit(f, latent_chanels=4), UserError, r"unknown key 'latent_chanels': did you mean 'latent_channel"),
        (
            lambda f: edit(f, act_fn="sillu"),
            UserError,
            r"VAE 'spoilt': diffusers cannot build it \(.*sillu.*restore its",
        ),
        (
            lambda f: edit(f, down_block_types=["Down"]),
            UserError,
            r"'spoilt': diffusers cannot build it \(.*restore its",
        ),
        (lambda f: edit(f, latent_channels=4), UserError, rf"{WEIGHTS} does not fit the config.json beside it \(size"),
        (lambda f: edit(f, layers_per_block=2), UserError, r"beside it \(Missing key.*restore both files"),
        (lambda f: edit(f, use_quant_conv=False), UserError, r"beside it \(Unexpected key"),
        (lambda f: edit(f, in_channels=1), UserError, r"'spoilt' takes pictures of 1 channels and gives 3: choose one"),
        (lambda f: edit(f, out_channels=4), UserError, r"'spoilt' takes pictures of 3 channels and gives 4"),
    ],
)
def test_spoilt_folder_is_one_line(
    folder: Path, spoil: Callable[[Path], Any], kind: type[UserError], words: str
) -> None:
    spoil(folder)
    with pytest.raises(UserError, match=words) as caught:
        load_pretrained_vae(folder)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_bad_description(saved: Path) -> None:
    description = load_pretrained_vae(saved).config.model_dump(mode="json")
    for change, words in (
        ({"family": "AutoencoderTiny"}, "pretrained VAE: family"),
        ({"sauce": "x"}, "unknown key 'sauce': did you mean 'source'"),
        ({"settings": {"latent_chanels": 4}}, "'tiny': unknown key 'latent_chanels': did you mean 'latent_channels'"),
    ):
        with pytest.raises(UserError, match=words):
            rebuilt({**description, **change})


@pytest.mark.parametrize("missing", ["diffusers", "owner/name"])
def test_without_diffusers(saved: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Said at once, whatever was asked for; loading a bundle asks the same."""
    description = load_pretrained_vae(saved).config.model_dump(mode="json")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    words = r"needs package 'diffusers': pip install 'calotype\[diffusers\]'"
    with pytest.raises(UserError, match=words):
        load_pretrained_vae(saved if missing == "diffusers" else missing)
    with pytest.raises(UserError, match=words):
        rebuilt(description)


def test_importing_brings_no_diffusers() -> None:
    program = (
        "import sys, calotype.latents.pretrained; "
        "assert not {'diffusers', 'huggingface_hub', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


# The hub: a cache made by hand, and a hub of our own on this host that the real client talks to.


class Hub(BaseHTTPRequestHandler):
    """What the hub's client asks of huggingface.co: the revision, the list of files, and each file."""

    files: dict[str, bytes]
    refusal: tuple[int, str] | None
    asked: list[str]
    agents: set[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.agents.add(self.headers["User-Agent"])
        path = self.path.split("?")[0]
        self.asked.append(path)
        _, _, name = path.partition(f"/resolve/{COMMIT}/")
        if self.refusal is not None:
            self.answer(self.refusal[0], b"{}", {"X-Error-Code": self.refusal[1]})
        elif "/tree/" in path:
            entries = [{"type": "file", "path": n, "size": len(c), "oid": COMMIT} for n, c in self.files.items()]
            self.answer(200, json.dumps(entries).encode())
        elif path.startswith("/api/models/"):
            self.answer(200, json.dumps({"id": "owner/name", "modelId": "owner/name", "sha": COMMIT}).encode())
        elif name in self.files:
            self.answer(200, self.files[name], {"ETag": f'"{name.replace("/", "-")}"', "X-Repo-Commit": COMMIT})
        else:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and the network not switched off by the environment that runs the tests."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "cache"


def keep(cache: Path, saved: Path, inside: str = "") -> Path:
    """Put the saved folder into the cache as the model owner/name; its snapshot."""
    model = cache / "models--owner--name"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    shutil.copytree(saved, model / "snapshots" / COMMIT / inside)
    return model / "snapshots" / COMMIT


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub on this host, its address given to the client; nothing of it is left afterwards."""
    import huggingface_hub
    from huggingface_hub import constants

    handler = type("OneHub", (Hub,), {"files": {}, "refusal": None, "asked": [], "agents": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    huggingface_hub.close_session()
    yield handler
    huggingface_hub.close_session()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("inside", ["", "vae"])
def test_cached_copy_needs_no_network(cache: Path, saved: Path, hub: type[Hub], inside: str) -> None:
    keep(cache, saved, inside)
    vae = load_pretrained_vae("owner/name")
    assert vae.config.source == "owner/name"
    assert vae.fingerprint == load_pretrained_vae(saved).fingerprint
    assert hub.asked == []


def test_cached_half_precision_copy(cache: Path, saved: Path, hub: type[Hub]) -> None:
    snapshot = keep(cache, saved)
    (snapshot / WEIGHTS).rename(snapshot / "diffusion_pytorch_model.fp16.safetensors")
    assert load_pretrained_vae("owner/name").fingerprint == load_pretrained_vae(saved).fingerprint
    assert hub.asked == []


@pytest.mark.parametrize("inside", ["", "vae/"])
def test_user_who_is_online_downloads_what_is_needed_and_no_more(
    cache: Path, saved: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    needed = {f"{inside}{name}": (saved / name).read_bytes() for name in ("config.json", WEIGHTS)}
    beside = ["v1-5-pruned.safetensors", "diffusion_pytorch_model.bin", "unet/config.json", f"unet/{WEIGHTS}"]
    hub.files = {**needed, **dict.fromkeys(beside, b"{}")}
    vae = load_pretrained_vae("owner/name")
    assert vae.config.source == "owner/name"
    assert vae.fingerprint == load_pretrained_vae(saved).fingerprint
    assert {path.partition(COMMIT + "/")[2] for path in hub.asked if "/resolve/" in path} == set(needed)
    assert not any("torch/" in agent or "agent/" in agent for agent in hub.agents), "nothing told of the user's tools"
    assert constants.HF_HUB_DISABLE_TELEMETRY is False, "the user's own choice stands"
    assert constants.HF_HUB_OFFLINE is False
    hub.asked.clear()
    load_pretrained_vae("owner/name")
    assert hub.asked == [], "the second time from the cache"


def test_half_a_cached_copy_is_completed(cache: Path, saved: Path, hub: type[Hub]) -> None:
    (keep(cache, saved) / WEIGHTS).unlink()
    hub.files = {name: (saved / name).read_bytes() for name in ("config.json", WEIGHTS)}
    assert load_pretrained_vae("owner/name").fingerprint == load_pretrained_vae(saved).fingerprint


def test_offline_says_what_to_download_and_where_to_put_it(
    cache: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        load_pretrained_vae("owner/name")
    assert str(caught.value) == (
        f"'owner/name' is neither a folder nor in {cache}, and not to be had now (HF_HUB_OFFLINE is set): "
        f"download config.json and {WEIGHTS} of {constants.ENDPOINT}/owner/name (a pipeline has them in vae/) "
        "into a folder and give that"
    )
    assert hub.asked == []


def test_no_connection(cache: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the port where nobody answers
    with pytest.raises(UserError, match=r"not to be had now \(ConnectError\): download config.json and"):
        load_pretrained_vae("owner/name")
    assert hub.asked == []


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((404, "RepoNotFound"), r"^'owner/name' is neither a folder nor a public model of the hub: check the name"),
        ((403, "GatedRepo"), r"http://127.0.0.1:\d+/owner/name asks its users to agree first: .* hf auth login"),
    ],
)
def test_refused_by_the_hub(hub: type[Hub], refusal: tuple[int, str], words: str) -> None:
    hub.refusal = refusal
    with pytest.raises(UserError, match=words):
        load_pretrained_vae("owner/name")


def test_model_without_a_vae(hub: type[Hub]) -> None:
    hub.files = {"unet/config.json": b"{}"}
    with pytest.raises(UserError, match=r"/owner/name has no config.json, of its own or in vae/: choose an Autoenc"):
        load_pretrained_vae("owner/name")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_stays_a_full_disk(hub: type[Hub], monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    import huggingface_hub

    def full(*_: Any, **__: Any) -> str:
        raise OSError(number, "full")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(OSError, match="full"):
        load_pretrained_vae("owner/name")
