"""How many threads a run takes where a container's limit grants fewer CPUs than the machine has."""

import pytest
import torch

from dcrnn_fast.training.device import default_threads

V2, V1 = "0::/pods/shop\n", "9:memory:/pods/shop\n4:cpu,cpuacct:/pods/shop\n0::/\n"
LIMITS = {
    "version 2": (V2, {"pods/shop/cpu.max": "300000 100000\n"}, 3),
    "version 2, of the group above": (V2, {"pods/shop/cpu.max": "max 100000\n", "pods/cpu.max": "200000 100000\n"}, 2),
    "version 2, seen from inside": (V2, {"cpu.max": "400000 200000\n"}, 2),
    "version 1": (V1, {"cpu/pods/shop/cpu.cfs_quota_us": "200000\n", "cpu/pods/shop/cpu.cfs_period_us": "100000\n"}, 2),
    "half a CPU": (V2, {"pods/shop/cpu.max": "50000 100000\n"}, 1),
    "one and a half": (V2, {"pods/shop/cpu.max": "150000 100000\n"}, 2),
    "more CPUs than threads": (V2, {"pods/shop/cpu.max": "6400000 100000\n"}, 5),
    "none in version 1": (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 5),
    "of memory alone": (V1, {"memory/pods/shop/cpu.max": "100000 100000\n"}, 5),
    "none": (V2, {}, 5),
    "of a group with an odd name": ("0::/a:\udcff x\n", {"a:\udcff x/cpu.max": "100000 100000\n"}, 1),
    "none, of lines that say nothing": ("\nnothing\n", {"cpu.max": "100000 100000\n"}, 5),
    "of a system without control groups": (None, {}, 5),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_run_takes_at_most_as_many_threads_as_a_limit_grants_cpus(limit, tmp_path, monkeypatch):
    of_process, files, threads = LIMITS[limit]
    contents = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in contents.items() if of_process is None else [*contents.items(), ("proc/self/cgroup", of_process)]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, errors="surrogateescape")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert default_threads(tmp_path) == threads
