"""Numbers of the official code, run on small made-up inputs: official_numbers.json.

    python tests/evaluation/record_official.py CLONE

CLONE is a clone of JustinTebbe/Dynamic-noise-AD. Its functions are imported and run;
none of its code is here. Beyond ddad's packages it needs kornia (theirs is 0.7.1),
pandas and scikit-image; the test that reads the numbers does not.

Run: main.constant; utilities.compute_alpha and compute_alpha2; sample's dynamic
my_generalized_steps and static DA_generalized_steps; test.KNN, get_bins_and_mappings
and the roundup inside validate; feature_extractor.roundup; all of anomaly_map, with
kornia's blur; metrics.compute_pro; and test.validate as a whole, from images to maps
and scores, with dynamic noise and without. Stand-ins, ours: configuration, networks,
data set, and torchvision's Compose, Lambda and Normalize.

Not run: trainer, Domain_adaptation and get_loss, which train on random draws; the rest
of metric, and visualize, which print and draw; MVTecDataset, since torchvision resizes.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import types
from functools import reduce
from pathlib import Path
from types import SimpleNamespace as Names
from unittest import mock

import diffusers.models.autoencoders.autoencoder_kl  # noqa: F401  before stand-ins
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

NUMBERS = Path(__file__).with_name("official_numbers.json")
SIZE, K, LAM, STRIDE = 64, 3, 0.85, 12          # maps are recorded at every 12th pixel


def drawn(seed, *shape):
    """Uniform in [-1, 1), float32; numpy has frozen the stream of RandomState."""
    draws = np.random.RandomState(seed).uniform(-1, 1, shape)
    return torch.from_numpy(draws).float()


class Eps(nn.Module):
    """A made-up noise predictor; it depends on step, channel and neighbouring cells."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.7))

    def forward(self, z, t):
        step = (t.float() / 37).cos().view(-1, 1, 1, 1)
        return torch.tanh(self.weight * z.roll(1, 1) + 0.4 * z.roll(1, 3) + step)


class Phi(nn.Module):
    """Three blocks at SIZE, SIZE / 2, SIZE / 4, of a normalised image."""

    def __init__(self):
        super().__init__()
        kernels = [drawn(n, 4, 4 if n else 3, 3, 3) / 2 for n in range(3)]
        self.kernels = nn.ParameterList(kernels)

    def forward(self, x):
        out = [x]
        for n, kernel in enumerate(self.kernels):
            x = F.conv2d(out[-1], kernel, stride=1 + (n > 0), padding=1)
            out.append(torch.tanh(x))
        return out[1:]


class Vae(nn.Module):
    """Latents (4, SIZE / 8, SIZE / 8); every sample of the posterior is its mean."""

    def encode(self, x0):
        latents = torch.einsum("oi,bihw->bohw", 6 * drawn(3, 4, 3), F.avg_pool2d(x0, 8))
        return Names(latent_dist=Names(mean=latents, std=0 * latents,
                                       sample=lambda: latents))

    def decode(self, z):
        x0_hat = torch.einsum("oi,bihw->bohw", drawn(4, 3, 4), z)
        return Names(sample=F.interpolate(x0_hat, scale_factor=8.0))


def latents():
    """z0 (2, 2, 4, 4) of the samplers."""
    return 1.5 * drawn(10, 2, 2, 4, 4)


def images():
    """Training images (12, 3, SIZE, SIZE) and test images (6, ..), in [-1, 1]."""
    grain = torch.linspace(0.05, 0.15, 12).view(12, 1, 1, 1)
    train = 0.5 * drawn(11, 1, 3, SIZE, SIZE) + grain * drawn(12, 12, 3, SIZE, SIZE)
    other = torch.tensor([0.9, -0.8, 0.7]).view(1, 3, 1, 1)
    defect = 0.03 * (masks() == 1).float().unsqueeze(1)
    return train, train[::2] + defect * (other - train[::2])


def masks():
    """(6, SIZE, SIZE) in [0, 1], with grey rims, and in one image two regions."""
    masks = torch.zeros(6, SIZE, SIZE)
    masks[1:, 20:40, 8:50] = 1
    masks[3, 50:53, 50:60] = masks[3, 53:56, 60:63] = 1      # they touch at a corner
    masks[1:, 19], masks[4, :, 50] = 0.4 * masks[1:, 20], 0.7
    return masks


def pro_maps(n):
    """Maps (6, SIZE, SIZE) for PRO: of flat noise, or with a heavy tail."""
    maps = masks() + 2 * drawn(14 + n, 6, SIZE, SIZE)
    return maps if n == 0 else (1.5 * maps).exp()


def pairs():
    """Two latents (2, 4, 8, 8); two images; two maps of two batches, one image each."""
    return ((drawn(18, 2, 4, 8, 8), drawn(19, 2, 4, 8, 8)),
            (images()[1][4:], images()[0][:2]),
            (drawn(20, 2, 1, SIZE, SIZE), drawn(21, 2, 1, SIZE, SIZE) ** 2))


# Distances of training images: the bins' edges are 0, 1 .. 10. And some to look up.
TRAINED = np.array([0, 0.5, 2.25, 3, 5.5, 7, 8.125, 10])
LOOKED_UP = np.array([-1, 0, 0.25, 1, 1.5, 2, 4.75, 9, 9.5, 10, 11])
STEPS = [0, 1, 9, 79, 249, 499, 999]
LEVELS = [25, 33, 50, 80, 90, 150, 250, 350, 650, 990]    # T_max; some have ties


class Missing(types.ModuleType):
    """A package that is not installed: its names can be imported, not called."""
    def __getattr__(self, name):
        def never(*args, **how):
            raise NotImplementedError(f"{self.__name__}.{name}")
        return never


def their_modules(clone):
    """Their modules by name, from the folder of the clone."""
    made = {name: Missing(name) for name in (
        "timm", "omegaconf", "torchmetrics", "consistencydecoder", "torchvision",
        "torchvision.datasets", "torchvision.transforms")}
    sys.modules.update(made)
    transforms = made["torchvision.transforms"]
    made["torchvision"].transforms = transforms.transforms = transforms
    column = lambda values: torch.tensor(values).view(-1, 1, 1)
    transforms.Compose = lambda steps: lambda x: reduce(lambda y, f: f(y), steps, x)
    transforms.Normalize = lambda mean, std: lambda x: (x - column(mean)) / column(std)
    transforms.Lambda = lambda function: function
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(clone))
    wanted = "main utilities sample test feature_extractor anomaly_map metrics"
    return Names(**{name: importlib.import_module(name) for name in wanted.split()})


def configuration(w=4.0, T_max=80, dynamic=True):
    model = Names(
        device="cpu", latent=True, latent_backbone="VAE", consistency_decoder=0, eta=0,
        eta2=w, dynamic_steps=dynamic, distance_metric_eval="combined",
        fe_backbone="resnet34", knn_k=K, KNN_metric="l1", selected_features=[1],
        DA_fine_tune=0, DA_epochs=1, num_workers=0, checkpoint_dir="kept",
        test_trajectoy_steps=T_max, skip=T_max // 10, noise_sampling=0,
        downscale_first=1, anomap_weighting=LAM, anomap_excluded_layers=[0],
        schedule="linear", beta_start=0.0015, beta_end=0.0195, trajectory_steps=1000)
    return Names(model=model, data=Names(
        name="MVTec", data_dir="", category="product", image_size=SIZE, batch_size=4,
        DA_batch_size=5))


def dataset(root, category, config, is_train):
    """In place of MVTecDataset."""
    train, tested = images()
    if is_train:
        return [(one, "good") for one in train]
    return [(one, mask.unsqueeze(0), "defective" if mask.any() else "good", "")
            for one, mask in zip(tested, masks())]


def numbers(values):
    """Nested lists, of eight digits; of maps every STRIDE-th pixel."""
    if isinstance(values, (torch.Tensor, np.ndarray)):
        if values.shape[-1] == SIZE:
            values = values[..., ::STRIDE, ::STRIDE]
        values = values.tolist()
    if isinstance(values, (list, tuple)):
        return [numbers(one) for one in values]
    return float(f"{values:.8g}")


def validated(theirs, betas, T_max, dynamic):
    """Their whole evaluation: what its functions were given."""
    put = {"MVTecDataset": dataset, "resnet34": lambda pretrained: [Phi()],
           "AutoencoderKL": Names(from_pretrained=lambda name: Vae()),
           "Domain_adaptation": lambda unet, phi, *rest, **how: phi,
           "visualize": lambda *rest: None, "metric": mock.Mock(return_value=0.5)}
    sampler = "my_generalized_steps" if dynamic else "DA_generalized_steps"
    for name in (sampler, "color_distance", "scale_values_between_zero_and_one"):
        put[name] = mock.Mock(wraps=getattr(theirs.test, name))
    with mock.patch.multiple(theirs.test, **put):
        config = configuration(4.0, T_max, dynamic)
        theirs.test.validate(Eps(), {"betas": betas}, config)
    given = {name: [call.args for call in one.call_args_list]
             for name, one in put.items() if isinstance(one, mock.Mock)}
    (A_l,), (A_f,) = given["scale_values_between_zero_and_one"]
    _, scores, A, truth, _ = given["metric"][0]
    steps = [one for y, _, seq, *_ in given[sampler]
             for one in (seq if dynamic else [seq] * len(y))]
    z0_hat = torch.cat([one for one, *_ in given["color_distance"]])
    return {"T_max": T_max, "dynamic": dynamic,
            "visited": [[int(t) for t in one] for one in steps],
            "z0_hat": numbers(z0_hat[..., ::4, ::4]), "latent": numbers(torch.cat(A_l)),
            "feature": numbers(torch.cat(A_f)), "map": numbers(torch.cat(A)),
            "score": numbers(scores),
            "pro": float(theirs.metrics.compute_pro(truth, A))}


def sampled(theirs, betas):
    """Both samplers; the static one has one level for all images."""
    found, z0, sample = [], latents(), theirs.sample
    for w in (0.0, 4.0):
        for levels in ([20, 20], [80, 80], [250, 250], [20, 250]):
            T_hat, config = torch.tensor(levels), configuration(w)
            start = theirs.utilities.compute_alpha2(betas, T_hat, config).sqrt() * z0
            each = [torch.arange(0, end, end // 10) for end in levels]
            for dynamic in (True, False)[:1 + (levels[0] == levels[1])]:
                run = sample.my_generalized_steps
                if not dynamic:
                    run, each = sample.DA_generalized_steps, each[0].tolist()
                out, _ = run(z0, start, each, Eps(), betas, config, w, 0, None)
                found.append({"w": w, "T_hat": levels, "dynamic": dynamic,
                              "z0_hat": numbers(out[-1])})
    return found


def levels(theirs):
    """Of bins 2 .. 10, by the evaluation's roundup and by fine-tuning's."""
    code, = (one for one in theirs.test.validate.__code__.co_consts
             if getattr(one, "co_name", "") == "roundup")
    roundup = types.FunctionType(code, vars(theirs.test), argdefs=(10,))
    single, share = theirs.feature_extractor.roundup, np.arange(2, 11) / 10
    return {str(T_max): [[int(one) for one in roundup(share * T_max)],
                         [int(single(one)) for one in (share * T_max).tolist()]]
            for T_max in LEVELS}


def pieces(theirs, betas):
    """The rest, each function by itself."""
    maps, config, (latent, image, (A_l, A_f)) = (
        theirs.anomaly_map, configuration(), pairs())
    # Of two points apart by 2 d, each has the mean distance d to itself and the other.
    knn, apart = theirs.test.KNN(config, k=2), 100 * np.arange(len(TRAINED))
    scale = maps.scale_values_between_zero_and_one
    knn.fit(torch.from_numpy(np.append(apart, apart + 2 * TRAINED)).view(-1, 1))
    _, bins = theirs.test.get_bins_and_mappings(knn, LOOKED_UP[:, None], [[]] * 11)
    scaled = scale(A_l.split(1)), scale(A_f.split(1))
    constants, at = theirs.main.constant(config), torch.tensor([-1, *STEPS])
    pro = [theirs.metrics.compute_pro(*(
        one.view(6, 1, 1, SIZE, SIZE) for one in (masks(), pro_maps(n))))
           for n in range(2)]
    return {
        "abar": [numbers(getattr(theirs.utilities, name)(betas, at, config).flatten())
                 for name in ("compute_alpha", "compute_alpha2")],
        "coefficients": [numbers(constants[name][STEPS]) for name in (
            "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod")],
        "edges": numbers(knn.bin_edges), "bins": [int(one) for one in bins],
        "latent": numbers(maps.color_distance(*latent, config, SIZE)),
        "latent blurred": numbers(maps.recon_heat_map(*latent, config)),
        "feature": numbers(maps.feature_distance_new(*image, Phi(), config)),
        "feature blurred": numbers(maps.feature_heat_map(*image, Phi(), config)),
        "scaled": numbers(torch.cat(scaled[0])),
        "map": numbers(torch.cat(maps.heatmap_latent(*scaled, config))),
        "pro": [float(one) for one in pro]}


def record(clone):
    """What official_numbers.json holds."""
    head = ["git", "-C", str(clone), "rev-parse", "HEAD"]
    commit = subprocess.run(head, check=True, capture_output=True, text=True).stdout
    theirs = their_modules(clone)
    betas = theirs.main.constant(configuration())["betas"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "kept", "product").mkdir(parents=True)      # for their pickle
        os.chdir(folder)
        runs = [validated(theirs, betas, *how) for how in (
            (80, True), (250, True), (80, False))]
        os.chdir(NUMBERS.parent)
    packages = ("torch", "numpy", "sklearn", "kornia", "pandas", "skimage")
    return {
        "repository": "JustinTebbe/Dynamic-noise-AD", "commit": commit.strip(),
        "versions": {name: sys.modules[name].__version__ for name in packages},
        "levels": levels(theirs), **pieces(theirs, betas), "evaluations": runs,
        "z0": numbers(latents()), "sampled": sampled(theirs, betas)}


if __name__ == "__main__":
    found = json.dumps(record(Path(sys.argv[1]).resolve()))
    NUMBERS.write_text(found + "\n", encoding="utf-8")
