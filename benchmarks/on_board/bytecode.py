"""Runs on a board: the same training in plain Python with floats, as one writes it without viper.

Instructions per multiply-accumulate and of the mean sample; JSON lines on stdout. Usage:
micropython bytecode.py CASE.json
"""

import gc
import json
import math
import sys
from array import array
from binascii import unhexlify

import icount

ELEMENTS = 128
OUTPUTS = 8


def floats(count):
    return array("f", bytes(4 * count))


class Layer:
    def __init__(self, entry, plan):
        self.kind, self.height, self.width, self.channels = entry[:4]
        self.filters, self.kernel, self.stride, flags, limit = entry[4:]
        self.local = flags & 1
        self.relu = flags & 2
        self.rate = (plan["rate_local"] if self.local else plan["rate_global"]) / 32768
        self.rows = (self.height - self.kernel) // self.stride + 1
        self.columns = (self.width - self.kernel) // self.stride + 1
        self.window = self.kernel * self.kernel * self.channels
        size = 0 if self.kind == 2 else self.filters * (self.window + 1)
        self.w = floats(size)
        for i in range(size):
            self.w[i] = ((i * 7919) % 201 - 100) / 100 * limit / 4096
        self.z = floats(self.rows * self.columns * self.filters)

    def offset(self, row, column, i):
        """Where the i-th value of a window lies in the input."""
        k = self.kernel * self.channels
        line = (row * self.stride + i // k) * self.width + column * self.stride
        return line * self.channels + i % k

    def forward(self, a):
        z = self.z
        at = 0
        for row in range(self.rows):
            for column in range(self.columns):
                if self.kind == 2:
                    for c in range(self.channels):
                        total = 0.0
                        for i in range(c, self.window, self.channels):
                            total += a[self.offset(row, column, i)]
                        z[at] = total / (self.kernel * self.kernel)
                        at += 1
                    continue
                w = self.w
                v = 0
                for _ in range(self.filters):
                    total = 0.0
                    if self.rows == self.columns == self.kernel == 1:
                        for i in range(self.window):
                            total += w[v + i] * a[i]
                    else:
                        for i in range(self.window):
                            total += w[v + i] * a[self.offset(row, column, i)]
                    v += self.window
                    total += w[v]
                    v += 1
                    z[at] = 0.0 if self.relu and total < 0 else total
                    at += 1
        return z

    def backward(self, error, a, below, learns):
        """Carry errors below, unless it is None, and step; for each pixel and output in turn."""
        at = 0
        w = self.w
        is_dense = self.rows == self.columns == self.kernel == 1
        if below is not None:
            for i in range(len(below)):
                below[i] = 0.0
        for row in range(self.rows):
            for column in range(self.columns):
                v = 0
                for f in range(self.filters):
                    e = error[at]
                    at += 1
                    if e == 0:
                        v += self.window + 1
                        continue
                    if self.kind == 2:
                        for i in range(f, self.window, self.channels):
                            below[self.offset(row, column, i)] += e / self.kernel / self.kernel
                        continue
                    if below is not None:
                        for i in range(self.window):
                            j = i if is_dense else self.offset(row, column, i)
                            below[j] += e * w[v + i]
                    if learns:
                        g = e * self.rate
                        for i in range(self.window):
                            j = i if is_dense else self.offset(row, column, i)
                            w[v + i] -= g * a[j]
                        w[v + self.window] -= g
                    v += self.window + 1


class Network:
    def __init__(self, plan):
        self.layers = [Layer(entry, plan) for entry in plan["layers"]]
        self.loss = plan["loss"]
        self.errors = [floats(len(layer.z)) for layer in self.layers]

    def step(self, x, y, local):
        inputs = []
        a = x
        for layer in self.layers:
            inputs.append(a)
            a = layer.forward(a)
        error = self.errors[-1]
        if self.loss:
            most = max(a)
            total = 0.0
            for i in range(len(a)):
                error[i] = math.exp(a[i] - most)
                total += error[i]
            for i in range(len(a)):
                error[i] = error[i] / total - (1.0 if i == y else 0.0)
        else:
            for i in range(len(a)):
                error[i] = a[i] - y[i]
        first = 0
        while not (len(self.layers[first].w) and self.layers[first].local == local):
            first += 1
        for n in range(len(self.layers) - 1, first - 1, -1):
            layer = self.layers[n]
            below = self.errors[n - 1] if n > first else None
            layer.backward(self.errors[n], inputs[n], below, layer.local == local)
            if below is not None and self.layers[n - 1].relu:
                for i in range(len(below)):
                    if inputs[n][i] == 0:
                        below[i] = 0.0


def kernels():
    """As step.py measures them; rows of 64 and 128 are long enough, for this takes its time."""
    took = []
    for inputs in (ELEMENTS, ELEMENTS // 2):
        entry = [0, 1, 1, inputs, OUTPUTS, 1, 1, 0, 512]
        layer = Layer(entry, {"rate_local": 9000, "rate_global": 9000})
        a = array("f", [(i * 53 % 1999 - 999) / 512 for i in range(inputs)])
        below = array("f", [0.0] * inputs)
        error = array("f", [1.5] * OUTPUTS)
        row = []
        for function, arguments in (
            (layer.forward, (a,)),
            (layer.backward, (error, a, below, False)),
            (layer.backward, (error, a, None, True)),
        ):
            gc.collect()
            row.append(icount.measure(function, *arguments))
        took.append(row)
    names = ("forward", "carry_back", "update")
    macs = ELEMENTS // 2 * OUTPUTS
    return {names[i]: (took[0][i] - took[1][i]) / macs for i in range(3)}


with open(sys.argv[1]) as file:
    case = json.load(file)
print(json.dumps({"kernels": kernels()}))
network = Network(case["plan"])
total = samples = 0
for local, phase in ((1, "support"), (0, "query")):
    for x, y in case[phase]:
        gc.collect()
        total += icount.measure(network.step, array("f", unhexlify(x)), y, local)
        samples += 1
print(json.dumps({"step": total / samples}))
