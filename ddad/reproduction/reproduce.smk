# The matrix of `ddad reproduce` as independent jobs, for Snakemake: on one machine, or
# on a cluster through its executors (Slurm among them). Snakemake runs in the
# environment that ddad is installed in.
#
#   snakemake -s "$(python -c 'import ddad; print(ddad.__path__[0])')/reproduction/reproduce.smk" \
#     --cores 2 --config name=visa data=data/visa out=runs/visa \
#     presets=clean,official seeds=0,1,2 options="--scale laptop"
from pathlib import Path

from ddad.reproduction.runs import categories_in
from ddad.synthetic.products import PRODUCTS

NAME, DATA, OUT = config["name"], config["data"], config["out"]
OPTIONS = config.get("options", "")
listed = lambda key, default: str(config.get(key, default)).split(",")
PRESETS, SEEDS = listed("presets", "clean"), listed("seeds", "0,1,2")
if "categories" in config:
    CATEGORIES = listed("categories", "")
else:
    # the embedded products are made by the first job
    CATEGORIES = [*PRODUCTS] if NAME == "embedded" else categories_in(Path(DATA))
COMMAND = f"ddad reproduce {NAME} {DATA} {OUT}"


rule all:
    input: f"{OUT}/receipt.json"


# killed, it goes on from its checkpoint: the detector's folder is no output of Snakemake's
rule run:
    output: f"{OUT}/{{category}}/{{preset}}-{{seed}}/run.json"
    threads: int(config.get("threads", 1))
    shell:
        "OMP_NUM_THREADS={threads} OMP_WAIT_POLICY=PASSIVE {COMMAND} --categories "
        "{wildcards.category} --presets {wildcards.preset} --seeds {wildcards.seed} "
        "--single {OPTIONS}"


# every run is there: this only makes the receipt and the tables
rule report:
    input:
        expand(f"{OUT}/{{category}}/{{preset}}-{{seed}}/run.json",
               category=CATEGORIES, preset=PRESETS, seed=SEEDS)
    output: f"{OUT}/receipt.json"
    params: categories=CATEGORIES, presets=PRESETS, seeds=SEEDS
    shell:
        "{COMMAND} --categories {params.categories} --presets {params.presets} "
        "--seeds {params.seeds} {OPTIONS}"
