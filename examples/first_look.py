"""A first look: latent diffusion on real pictures, from nothing, read from top to bottom. Equations: docs/math.md.

`python examples/first_look.py` (OpenMoji, six minutes on one core), or `... photos/ --vae-steps 3000 --steps 6000`.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.nn.functional import l1_loss, mse_loss

from calotype.core.progress import Silent
from calotype.images import SHOWCASE, open_source, plot_images, prepare, save_png, to_float
from calotype.latents import Codec, ConvVAE, VAEConfig, decode_latents, encode_pictures, kl_divergence, reparameterize
from calotype.network import Condition, NetworkDenoiser, UNet, UNetConfig, guided, thresholded
from calotype.process import VariancePreserving, add_noise, sample_t, target
from calotype.sampling import dpmpp_2m_step, sample_frames, timestep_grid
from calotype.text import load_text_encoder
from calotype.training.muon import Muon


def descend(network, loss_of_a_batch, optimizers, steps):
    """`steps` steps downhill; the learning rates warm up over 50 of them and fall to zero over the last half."""
    rates = [torch.optim.lr_scheduler.LambdaLR(o, lambda i: min(1, i / 50, 2 - 2 * i / steps)) for o in optimizers]
    for i in range(steps):
        network.zero_grad()
        (loss := loss_of_a_batch()).backward()
        for part in (*optimizers, *rates):
            part.step()
        if (i + 1) % max(1, steps // 10) == 0:
            print(f"{type(network).__name__}: step {i + 1} of {steps}, loss {loss.item():.3f}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Latent diffusion on real pictures, from nothing.")
    parser.add_argument("data", nargs="?", default="openmoji", help="a folder of pictures (default: OpenMoji)")
    parser.add_argument("--vae-steps", type=int, default=1000, help="training steps of the autoencoder")
    parser.add_argument("--steps", type=int, default=700, help="training steps of the denoiser")
    parser.add_argument("--out", type=Path, default=Path("first_look.png"), help="the sheet to write")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)

    # 1. Pictures, and the words that say what each shows: its caption or its class, or nothing.
    folder = TemporaryDirectory()
    pictures = prepare(open_source(options.data, size=64), 64, Path(folder.name), Silent())
    pixels, count = pictures.pixels, len(pictures)
    words = [caption or label or "" for caption, label in zip(pictures.captions, pictures.labels)]
    wishes = Condition(torch.tensor([not word for word in words]), text=load_text_encoder().encode(words))

    # 2. An autoencoder learns to press 64 x 64 x 3 numbers into 8 x 8 x 4, and back (eqs. 43-45).
    vae = ConvVAE(VAEConfig())

    def vae_loss():
        images = to_float(pixels[torch.randint(count, (16,))])
        mean, logvar = vae.encode(images)
        again = vae.decode(reparameterize(mean, logvar, torch.randn_like(mean)))
        return mse_loss(again, images) + l1_loss(again, images) / 4 + 1e-3 * kl_divergence(mean, logvar)

    kernels, rest = [p for p in vae.parameters() if p.ndim == 4], [p for p in vae.parameters() if p.ndim < 4]
    descend(vae, vae_loss, [Muon(kernels, lr=0.02), torch.optim.AdamW(rest, lr=3e-3)], options.vae_steps)

    # 3. Every picture becomes a latent, once; the codec keeps the latents' mean and scale (eq. 46).
    latents = encode_pictures(vae, pictures, Path(folder.name, "latents"), mirrored=False)
    codec = Codec(vae, latents.statistics, pictures.size)

    # 4. A network learns to see through noise of any strength (eqs. 1, 15, 20), at times without the words (eq. 36).
    process = VariancePreserving.cosine()
    network = UNet(UNetConfig(text_dim=wishes.text.pooled.shape[1], map_channels=8, map_size=codec.latent_shape[1]))
    network.condition.fit_text(wishes.text.pooled)
    denoiser = NetworkDenoiser(network, process, "v")

    def denoiser_loss():
        ids, t = torch.randint(count, (64,)), sample_t(process, torch.rand(64))
        x0 = latents.draw(ids, None, torch.randn(64, *codec.latent_shape))
        eps, cond = torch.randn_like(x0), wishes[ids].dropped(torch.rand(64) < 0.12)
        return mse_loss(denoiser.predict(add_noise(process, x0, t, eps), t, cond), target("v", process, x0, eps, t))

    descend(network, denoiser_loss, [torch.optim.AdamW(network.parameters(), lr=4e-3)], options.steps)

    # 5. From noise alone to 32 new pictures: guidance (eq. 36), thresholding (eq. 40), 20 steps of a solver (eq. 31).
    asked = [words.index(w) for w in SHOWCASE] if set(SHOWCASE) <= set(words) else [i * count // 32 for i in range(32)]
    x_t = process.prior((32, *codec.latent_shape), torch.randn(32, *codec.latent_shape))
    dressed, grid = thresholded(guided(denoiser, 3.0), bound=codec.statistics.bound), timestep_grid(process, 20)
    frames = list(sample_frames(dressed, process, x_t, grid, step=dpmpp_2m_step, cond=wishes[asked]))

    # 6. The sheet: pictures, what the autoencoder keeps of them, one drowned in noise, one coming about, all that came.
    given = to_float(pixels[asked[:8]])
    kept, levels = codec.encode(given), torch.linspace(1, process.t_max, 8).round()
    drowned = add_noise(process, kept[:1].expand_as(kept), levels, torch.randn_like(kept[:1]).expand_as(kept))
    coming = torch.stack([frames[i].x0_hat[0] for i in (1, 2, 4, 7, 10, 13, 16, 20)])
    rows = [given] + [decode_latents(codec, row) for row in (kept, drowned, coming, frames[-1].x_t)]
    titles = [name if i == 0 else "" for name in ("given", "kept", "drowned", "coming about") for i in range(8)]
    save_png(plot_images(torch.cat(rows), columns=8, captions=titles + [words[i] for i in asked]), options.out)
    folder.cleanup()


if __name__ == "__main__":
    main()
