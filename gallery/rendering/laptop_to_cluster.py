"""
From a laptop to a cluster
==========================

A slide was taken as 64 overlapping pictures, which lie in a store on disk. One program
makes one picture of them. But the next slide has ten thousand, and there is a
cluster. We want the same lines of code to use it, the same result to the last bit, and
no tears when a machine fails. You will see two workers share the work, one of
them die and come back, and how much has to travel between them.
"""

import os
import pickle
import signal
import sys
import tempfile
from pathlib import Path
from time import time

import dask.array as da
import h5py
import matplotlib.pyplot as plt
import numpy as np
import zarr
from distributed import Client, SubprocessCluster, get_task_stream
from skimage import data, transform

import spectral_tools as spt

# %%
# Tiles in a store
# ----------------
# Eight by eight pictures of stained tissue, with a stage that misses by 4 pixels, go
# into one Zarr array. From here on, nobody needs all of them in memory.

folder = Path(tempfile.mkdtemp())
tissue = transform.resize(data.immunohistochemistry()[..., 1], (1152, 1152), order=3)
made = spt.simulate_tiles(
    255 * tissue, (8, 8), (160, 160), overlap=0.15, stage_sigma=4, noise_sigma=4, rng=1
)
tiles = zarr.create_array(
    folder / "tiles.zarr", data=made.tiles.astype(np.float32), chunks=(1, 160, 160)
)
links, stage = spt.grid_links((8, 8)), made.stage
print(tiles.shape[0], "tiles,", len(links), "links,", tiles.nbytes // 10**6, "MB")

# %%
# On a laptop
# -----------
# Match, place, render: three calls, in this program and on one core.


def solve(matches):
    return spt.solve_rigid(
        matches.links,
        matches.reference_points,
        matches.moving_points,
        covariance=matches.covariance,
        positions=stage,
    )


search = {"positions": stage, "max_shift": 30}
matches = spt.match_tiles(tiles, links, **search)
placed = solve(matches)
plain = spt.warp_composite(tiles, placed.matrices)
print("mosaic of", plain.image.shape, "pixels")

# %%
# Two workers
# -----------
# Two more programs stand in for two machines, each with one thread; a third one deals
# out the work. On another cluster, this is the only line that changes.

# They look for packages where this program does.
os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, sys.path))
cluster = SubprocessCluster(
    n_workers=2,
    threads_per_worker=1,
    dashboard_address=None,
    worker_kwargs={"preload": ["spectral_tools"]},
)
client = Client(cluster)
client.wait_for_workers(2, timeout=120)
executor = client.get_executor()

# %%
# One of them dies
# ----------------
# The option ``workers`` takes anything that is used like ``map``. For a cluster that is
# ``executor.map``. Ours kills a worker without a warning, as soon as a tenth of the
# results are there. The links that it had go to the other one, and the cluster starts
# a new worker in its place.

died = []


def deadly_map(function, items):
    for count, result in enumerate(executor.map(function, items)):
        if count == len(items) // 10:
            os.kill(min(client.run(os.getpid).values()), signal.SIGKILL)
            died.append(time())
        yield result


with get_task_stream(client) as matching:
    matches_there = spt.match_tiles(tiles, links, **search, workers=deadly_map)
placed_there = solve(matches_there)

# %%
# Render where the tiles are
# --------------------------
# A lazy mosaic is an array that is not there yet, with any chunks. Whoever needs a
# chunk renders it. Here the workers do, and they write it too: no
# pixel comes back to this program.

client.wait_for_workers(2, timeout=120)
with get_task_stream(client) as rendering:
    mosaic = spt.lazy_composite(tiles, placed_there.matrices, chunks=(384, 384))
    da.to_zarr(mosaic, str(folder / "mosaic.zarr"))
print(mosaic)

# %%
# The same bits
# -------------
# Who works on what, and how often it is begun again, changes nothing.

stored = zarr.open_array(folder / "mosaic.zarr")
same = {
    "points": np.array_equal(matches_there.reference_points, matches.reference_points),
    "positions": np.array_equal(placed_there.matrices, placed.matrices),
    "pixels": np.array_equal(stored[...], plain.image),
}
print("the same to the last bit:", same)

# %%
# Who did what
# ------------
# Each bar is a link or a part of the mosaic. What the dead worker had not delivered was
# done again by another.


def bars(stream):
    for task in stream.data:
        for step in task["startstops"]:
            if step["action"] == "compute":
                yield task["worker"], step["start"], step["stop"] - step["start"]


began = min(start for _, start, _ in bars(matching))
done = {"match": list(bars(matching)), "render": list(bars(rendering))}
order = list(dict.fromkeys(who for each in done.values() for who, _, _ in each))
fig, axes = plt.subplots(
    1, 2, figsize=(8, 3.2), layout="constrained", width_ratios=(5, 3)
)
for (job, tasks), colour in zip(done.items(), ("#0072B2", "#E69F00"), strict=True):
    row = [order.index(who) for who, _, _ in tasks]
    left = [start - began for _, start, _ in tasks]
    axes[0].barh(
        row, [long for _, _, long in tasks], 0.6, left, color=colour, label=job
    )
axes[0].axvline(died[0] - began, color="#D55E00", ls="--", label="one dies")
axes[0].set(title="Two workers, and one that came back", xlabel="seconds")
axes[0].set_yticks(range(len(order)), [f"worker {n}" for n in range(len(order))])
axes[0].invert_yaxis()
axes[0].legend(loc="upper right")
axes[1].imshow(stored[...], cmap="gray")
for edges, draw in zip(mosaic.chunks, (axes[1].axhline, axes[1].axvline), strict=True):
    for edge in np.cumsum(edges)[:-1]:
        draw(edge - 0.5, color="#E69F00", lw=1)
axes[1].set(title="The mosaic and its chunks", xlabel="col", ylabel="row")
plt.show()

# %%
# What travels
# ------------
# A link travels to its worker as two handles, which say where the tiles are, and its
# result comes back as a few numbers. A mosaic travels as the list of its chunks, and
# once to each worker goes a plan of where the tiles lie. With tiles that are in memory
# their pixels travel as well, so large data belongs into a store.

sizes = []


def weighing_map(function, items):
    sizes.extend(len(pickle.dumps((function, item))) for item in items)
    return map(function, items)


spt.match_tiles(tiles, links[:5], **search, workers=weighing_map)
link = max(sizes)
graph = len(pickle.dumps(mosaic.__dask_graph__()))
held = spt.lazy_composite(made.tiles.astype(np.float32), placed.matrices)
print("a link:                       ", link, "bytes")
print("the mosaic, tiles in a store: ", graph // 1000, "kB")
carried = len(pickle.dumps(held.__dask_graph__()))
print("the mosaic, tiles in memory:  ", carried // 1000, "kB")

# %%
# Where it fails
# --------------
# A worker opens the store by itself, so the store must be one that it can open. A
# dataset of an HDF5 file that is open here cannot travel, nor would a store in
# the memory of this program. Such tiles are good for threads: ``workers=8``.

with h5py.File(folder / "tiles.h5", "w") as file:
    dataset = file.create_dataset("tiles", data=tiles[:2])
    try:
        pickle.dumps(dataset)
    except TypeError as error:
        refusal = str(error)
print(refusal)

# %%
# On a real cluster
# -----------------
# Two lines change. For one that is run by Slurm, with dask-jobqueue, which adds machines
# while there is work and gives them back after:
#
# .. code-block:: python
#
#     cluster = SLURMCluster(cores=8, processes=8, memory="32GB", walltime="01:00:00")
#     cluster.adapt(minimum=1, maximum=200)
#
# and the store lies where all machines see it: a shared file system, or an object
# store such as ``s3://``. What else to know:
#
# * One thread for each worker and many workers: the functions hold no locks, but each
#   worker then dies alone. A region with its tiles takes some tens of megabytes.
# * Let the chunks of the mosaic be whole regions of 1024 by 1024 pixels, as they are by
#   default, or several. Others come out the same, but parts of them move between workers.
# * Let the tiles have chunks, too: a region reads those that it touches, so that a large
#   tile in one chunk is read as a whole by each of its regions.
# * Each task costs the scheduler some milliseconds, and a region costs its worker about
#   ten. For dozens of workers take larger chunks, such as 4096 by 4096: each is one task.
#   Links travel in groups by themselves where there are thousands of them.
# * A script that starts a ``LocalCluster`` must do so below
#   ``if __name__ == "__main__":``, because its workers import the script. Workers
#   that are started as programs, here and on machines of their own, do not.

client.close()
cluster.close()

# %%
# What this page promised
# -----------------------

assert all(same.values())
assert len(died) == 1
assert link < 3000
assert graph < 0.01 * tiles.nbytes
assert "h5py" in refusal
