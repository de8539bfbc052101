# The experiments of experiments.py as independent jobs, one thread each, for Snakemake:
# `make experiments` starts it. Those that measure time run alone, on all cores. What a
# killed job has made stays, and it goes on there.
import sys

sys.path.insert(0, workflow.basedir)
from experiments import BY_NAME

NAMES = config["names"].split(",")
FLAG = "build/experiments/{name}.made"


rule all:
    input: expand(FLAG, name=NAMES)


rule experiment:
    input: lambda now: expand(FLAG, name=set(BY_NAME[now.name].after) & set(NAMES))
    output: touch(FLAG)
    wildcard_constraints: name=".+"
    params: tool=f"{workflow.basedir}/experiments.py", options=config.get("options", "")
    threads: lambda now: workflow.cores if BY_NAME[now.name].kind.alone else 1
    shell:
        "OMP_NUM_THREADS={threads} OMP_WAIT_POLICY=PASSIVE {sys.executable} "
        "{params.tool} make {wildcards.name} {params.options}"
