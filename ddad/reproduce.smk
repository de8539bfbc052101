# The matrix of `ddad reproduce` as independent jobs, for Snakemake: on one machine, or on a cluster through its executors (Slurm among them).
#
#   snakemake -s "$(python -c 'import ddad; print(ddad.__path__[0])')/reproduce.smk" --cores 2 \
#     --config name=visa data=data/visa out=runs/visa presets=clean,official seeds=0,1,2 options="--scale laptop"
from pathlib import Path

NAME, DATA, OUT, OPTIONS = config["name"], config["data"], config["out"], config.get("options", "")
listed = lambda key, default: str(config.get(key, default)).split(",")
PRESETS, SEEDS = listed("presets", "clean"), listed("seeds", "0,1,2")
CATEGORIES = listed("categories", "blister,board,fabric") if NAME == "embedded" or "categories" in config else sorted(
    path.name for path in Path(DATA).iterdir() if (path / "train").is_dir() or (path / "Data").is_dir())


rule all:
    input: f"{OUT}/receipt.json"


rule run:                                    # killed, it goes on from its checkpoint: the detector's folder is no output of Snakemake's
    output: f"{OUT}/{{category}}/{{preset}}-{{seed}}/run.json"
    threads: int(config.get("threads", 1))
    shell: "OMP_NUM_THREADS={threads} ddad reproduce {NAME} {DATA} {OUT} --categories {wildcards.category} --presets {wildcards.preset} --seeds {wildcards.seed} --single {OPTIONS}"


rule report:                                 # every run is there: this only makes the receipt and the tables
    input: expand(f"{OUT}/{{category}}/{{preset}}-{{seed}}/run.json", category=CATEGORIES, preset=PRESETS, seed=SEEDS)
    output: f"{OUT}/receipt.json"
    shell: "ddad reproduce {NAME} {DATA} {OUT} --categories " + " ".join(CATEGORIES) + " --presets " + " ".join(PRESETS) + " --seeds " + " ".join(SEEDS) + " {OPTIONS}"
