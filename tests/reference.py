"""The problem on which published claims are measured, and its dense linear algebra.

Eight agents with f_i(x) = |A_i x - b_i|^2 / (2 m), b_i = A_i t_i: H_i = A_i' A_i / m, and
c_i = H_i t_i. Fixed points of linear recursions are solved for in [n d] dense algebra.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ifog
from ifog.agents import MatrixMixer
from ifog.algorithms import iterate
from ifog.problems import reference_problem
from ifog.weights import matrix

N, D = 8, 20
P = reference_problem()
H, C = (part.numpy() for part in P.normal_form)
X = P.optimum()
RING = ifog.ring(N)
W = matrix(RING)  # eigenvalues from -1/3 to 1
EYE = np.eye(D)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """What is small here is not worth waking another thread for, on a machine that others use."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mixer(graph=RING):
    return MatrixMixer(graph)


def run(algorithm, steps, mix=None, problem=P):
    return iterate(algorithm, problem.zeros(), problem, mix or mixer(), steps)


def error(x, optimum=X):
    """The root mean square distance to the optimum, relative to its length."""
    return float((x - optimum).norm() / (len(x) ** 0.5 * optimum.norm()))


def wide(w):
    """W for all entries: [n d, n d]."""
    return np.kron(w, EYE)


def blocks(values):
    """[n, d, d] as a block diagonal matrix [n d, n d]."""
    whole = np.zeros((N * D, N * D))
    for i, block in enumerate(values):
        whole[i * D : (i + 1) * D, i * D : (i + 1) * D] = block
    return whole


def solved(matrix_, right):
    return torch.from_numpy(np.linalg.solve(matrix_, right).reshape(N, D))


def atc_point(lr, w=W):
    """x = W (x - a (H x - c))."""
    right = lr * wide(w) @ C.reshape(-1)
    return solved(np.eye(N * D) - wide(w) @ (np.eye(N * D) - lr * blocks(H)), right)


def awc_point(lr, w=W):
    """(I - W + a H) x = a c."""
    return solved(np.eye(N * D) - wide(w) + lr * blocks(H), lr * C.reshape(-1))


def local_powers(lr, every):
    """P_i = I - (I - a H_i)^K: K local steps lead from x to x + P_i (t_i - x)."""
    return np.stack([EYE - np.linalg.matrix_power(EYE - lr * h, every) for h in H])


def local_optima():
    """[n, d] the t_i."""
    return np.linalg.solve(H, C[..., None])[..., 0]


def near(one, other, atol):
    return one.shape == other.shape and float((one - other).abs().max()) < atol


def pairs(n=N, rounds=256):
    """A schedule in which every agent meets another one, drawn anew in each of 256 rounds."""

    class Pairs:
        period = rounds

        def __call__(self, step):
            w = np.zeros((n, n))
            for pair in np.random.default_rng(step).permutation(n).reshape(-1, 2):
                w[np.ix_(pair, pair)] = 0.5
            return ifog.from_matrix(w)

    return Pairs()
