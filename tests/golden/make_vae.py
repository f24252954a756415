"""Writes tests/golden/vae/NAME/: tiny image autoencoders as diffusers saves them, with expected.safetensors: latents as a sampler leaves
them, what the decoder makes of them in f64, the bytes that diffusers' image processor rounds that to, and what the encoder makes of those
bytes in f64 ("encoded": the mean, as a transformer takes it). "tiled" are the bytes of larger latents ("many") decoded in tiles. Needs torch and diffusers:
    python tests/golden/make_vae.py"""
import pathlib

import numpy
import torch
from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor
from safetensors.torch import save_file

CASES = {  # type of the weights in the file, latents [N, height, width], configuration
    "square_f32": (torch.float32, (2, 4, 4), dict(block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, latent_channels=4)),
    "wide_f16": (torch.float16, (2, 2, 3), dict(block_out_channels=(2, 4, 4, 4), layers_per_block=2, norm_num_groups=2, latent_channels=16)),
    "tall_bf16": (torch.bfloat16, (1, 5, 3), dict(block_out_channels=(4, 2, 4), layers_per_block=1, norm_num_groups=2, latent_channels=3,
                                                  mid_block_add_attention=False)),
}
root = pathlib.Path(__file__).parent / "vae"
for name, (stored, (n, height, width), options) in CASES.items():
    torch.manual_seed(len(name))
    blocks = len(options["block_out_channels"])
    model = AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * blocks, up_block_types=("UpDecoderBlock2D",) * blocks,
                          sample_size=64, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False,
                          **options).eval()
    latents = torch.randn(n, options["latent_channels"], height, width)
    with torch.no_grad():
        for parameter in model.parameters():  # so that scales and biases of norms differ too
            parameter.add_(0.1 * torch.randn_like(parameter))
        image = model.decode(latents / 1.5305 + 0.0609).sample
        model.decoder.conv_out.weight.mul_(0.6 / image.std())  # most values within -1 to 1, some outside
        model.decoder.conv_out.bias.zero_().add_(torch.tensor([0.1, -0.2, 0.05]))
        model.to(stored).save_pretrained(root / name)
        image = model.double().decode(latents.double() / 1.5305 + 0.0609).sample
    processor = VaeImageProcessor(vae_scale_factor=2 ** (blocks - 1))
    images = processor.postprocess(image.float(), output_type="pil")
    with torch.no_grad():
        mean = model.encode(processor.preprocess(images).double()).latent_dist.mode()
    model.enable_tiling()  # tiles of 4 latents, several of them in rows and columns
    model.tile_latent_min_size, model.tile_sample_min_size = 4, 4 * 2 ** (blocks - 1)
    many = torch.randn(1 + (blocks < 3), options["latent_channels"], 2 * height + 3, 2 * width + 2)
    with torch.no_grad():
        tiled = model.decode(many.double() / 1.5305 + 0.0609).sample
    tiled = numpy.stack([numpy.asarray(i) for i in processor.postprocess(tiled.float(), output_type="pil")])
    save_file({"many": many, "tiled": torch.from_numpy(tiled), "encoded": ((mean - 0.0609) * 1.5305).contiguous(),
               "latents": latents, "image": image.permute(0, 2, 3, 1).contiguous(),
               "bytes": torch.from_numpy(numpy.stack([numpy.asarray(i) for i in images]))}, root / name / "expected.safetensors")
    print(name, image.std().item(), image.abs().max().item())
