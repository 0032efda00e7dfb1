# SPDX-License-Identifier: Apache-2.0
"""Modules that no generator of ours can have written: what a reader of ports has to refuse."""

from __future__ import annotations

HEAD = "import mindspore as ms\nfrom mindspore import Parameter, Tensor, nn, ops\n\n\n"
CELL = HEAD + "class M(nn.Cell):\n    def __init__(self):\n        super().__init__()\n"
CONSTRUCT = HEAD + "class M(nn.Cell):\n    def construct(self, x):\n"
COUNTED = CONSTRUCT + "        step = Tensor(0, ms.int64)\n        while step < {}:\n            {}\n        return x\n"

#: Everything here would run code, touch files, or reach for what could, if it were executed.
ATTACKS = {
    # statements and imports
    "import os": HEAD + "import os\n",
    "import as": "import os as ms\n",
    "import more": "import mindspore as ms, os\n",
    "from os": "from os import system as ops\n",
    "from mindspore": "from mindspore import load_checkpoint as ops\n",
    "from mindspore star": "from mindspore import *\n",
    "from submodule": "from mindspore.train.serialization import os\n",
    "relative import": "from . import ops\n",
    "import in a function": CONSTRUCT + "        import os\n        return x\n",
    "import in a class": HEAD + "class M(nn.Cell):\n    import os\n",
    "exec": HEAD + "exec('import os')\n",
    "eval": HEAD + "x = eval('1')\n",
    "open": HEAD + "x = open('/etc/passwd')\n",
    "__import__": HEAD + "x = __import__('os')\n",
    "__builtins__": HEAD + "x = __builtins__\n",
    "print": CONSTRUCT + "        print(x)\n        return x\n",
    "breakpoint": CONSTRUCT + "        breakpoint()\n        return x\n",
    "try": HEAD + "try:\n    x = ops.ones(1)\nexcept Exception:\n    pass\n",
    "with": CONSTRUCT + "        with x:\n            return x\n",
    "while": CONSTRUCT + "        while x:\n            x = x\n        return x\n",
    "while that does not count": COUNTED.format("x.shape[0]", "step = x"),
    "while that counts back": COUNTED.format("x.shape[0]", "step = step + 1\n            step = step - 1"),
    "while that counts twice": COUNTED.format("x.shape[0]", "step = step - 1\n            step = step + 1"),
    "while of any length": COUNTED.format("float(\"inf\")", "step = step + 1"),
    "while of a growing length": COUNTED.format(
        "x.shape[0]", "x = ops.cat((x, x))\n            step = step + 1"
    ),
    "while from anywhere": CONSTRUCT
    + "        step = -1\n        while step < x.shape[0]:\n            step = step + 1\n        return x\n",
    "for at the top": HEAD + "for x in (1, 2):\n    y = x\n",
    "for over values": CONSTRUCT + "        for y in (ms, x):\n            x = y\n        return x\n",
    "global": CONSTRUCT + "        global ops\n        return x\n",
    "delete": CONSTRUCT + "        del self.x\n        return x\n",
    "assert": CONSTRUCT + "        assert x\n        return x\n",
    "raise": CONSTRUCT + "        raise x\n",
    "augmented": CONSTRUCT + "        x += 1\n        return x\n",
    "match": CONSTRUCT + "        match x:\n            case ms.Tensor():\n                return x\n",
    "async": HEAD + "async def f(x):\n    return x\n",
    "yield": CONSTRUCT + "        yield x\n",
    "await": HEAD + "async def f(x):\n    await x\n",
    "if at the top": HEAD + "if True:\n    import os\n",
    # functions and classes
    "lambda": CONSTRUCT + "        f = lambda y: y\n        return x\n",
    "decorated function": HEAD + "@ops.ones\ndef f(x):\n    return x\n",
    "decorated method": HEAD + "class M(nn.Cell):\n    @ms.jit\n    def construct(self, x):\n        return x\n",
    "decorated class": HEAD + "@ms.jit_class\nclass M(nn.Cell):\n    pass\n",
    "annotation": CONSTRUCT.replace("self, x", "self, x: __import__('os').system('true')") + "        return x\n",
    "annotation of a keyword": HEAD + "def f(*, x: open('/etc/passwd') = 1):\n    return x\n",
    "return annotation": HEAD + "def f(x) -> __import__('os').system('true'):\n    return x\n",
    "annotated variable": CONSTRUCT + "        y: open('/etc/passwd') = x\n        return y\n",
    "positional only": HEAD + "def f(x: open('/etc/passwd'), /):\n    return 1\n",
    "default": HEAD + "def f(x=open('/etc/passwd')):\n    return x\n",
    "star arguments": HEAD + "def f(*x):\n    return x\n",
    "keyword arguments": HEAD + "def f(**x):\n    return x\n",
    "other base": HEAD + "class M(ops.Custom):\n    pass\n",
    "two bases": HEAD + "class M(nn.Cell, nn.CellList):\n    pass\n",
    "metaclass": HEAD + "class M(nn.Cell, metaclass=ms.Meta):\n    pass\n",
    "class statement": HEAD + "class M(nn.Cell):\n    x = open('/etc/passwd')\n",
    "class in a class": HEAD + "class M(nn.Cell):\n    class N(nn.Cell):\n        pass\n",
    "function in a function": CONSTRUCT + "        def f(y):\n            return y\n        return x\n",
    "other method": HEAD + "class M(nn.Cell):\n    def __del__(self):\n        return 1\n",
    "__getattr__": HEAD + "class M(nn.Cell):\n    def __getattr__(self, name):\n        return 1\n",
    "bprop": HEAD + "class M(nn.Cell):\n    def bprop(self, x):\n        return x\n",
    "construct_evil": HEAD + "class M(nn.Cell):\n    def construct_evil(this):\n        return this\n",
    # names
    "getattr": CONSTRUCT + "        return getattr(x, 'a')\n",
    "setattr": CONSTRUCT + "        setattr(x, 'a', 1)\n        return x\n",
    "vars": CONSTRUCT + "        return vars()\n",
    "type": CONSTRUCT + "        return type(x)\n",
    "unknown name": CONSTRUCT + "        return os\n",
    "shadowed super": HEAD + "def super():\n    return 1\n",
    "shadowed module": HEAD + "def f(ops):\n    return ops.zeros(1)\n",
    "shadowed by a class": HEAD + "class ops(nn.Cell):\n    pass\n",
    "shadowed by a loop": CONSTRUCT + "        return [ops.zeros(1) for ops in range(3)]\n",
    "shadowed by a variable": CONSTRUCT + "        ms = x\n        return ms.float32\n",
    "shadowed Tensor": CONSTRUCT + "        Tensor = x\n        return Tensor(1)\n",
    "self rebound": CONSTRUCT + "        self = x\n        return self.tofile('x')\n",
    "self as an argument": HEAD + "def f(self):\n    return self.asnumpy()\n",
    "walrus": CONSTRUCT + "        return (ms := x)\n",
    # attributes
    "__class__": CONSTRUCT + "        return x.__class__\n",
    "__class__ chain": CONSTRUCT + "        return x.__class__.__base__.__subclasses__()\n",
    "__globals__": CONSTRUCT + "        return ops.zeros.__globals__\n",
    "fullwidth": CONSTRUCT + "        return x.\uff3f\uff3fclass\uff3f\uff3f\n",
    "private": CONSTRUCT + "        return self._cells\n",
    "super().x": CONSTRUCT + "        return super().x\n",
    "super elsewhere": CONSTRUCT + "        super().__init__()\n        return x\n",
    "super as a value": CONSTRUCT + "        return super\n",
    "assigning a module's": HEAD + "ops.zeros = 1\n",
    "assigning in a loop": CONSTRUCT + "        return [1 for ops.zeros in range(3)]\n",
    "assigning an item": CONSTRUCT + "        x[0] = 1\n        return x\n",
    "assigning in construct": CONSTRUCT + "        self.y = x\n        return x\n",
    "assigning a private": CELL + "        self._cells = 1\n",
    "assigning another's": CELL + "        self.a = nn.Identity()\n        self.a.b = 1\n",
    "ops.Custom": CELL + "        self.x = ops.Custom('f', None, None, 'pyfunc')\n",
    "ops.PyFunc": CELL + "        self.x = ops.PyFunc(1, 2, 3, 4, 5)\n",
    "ops.Print": CELL + "        self.x = ops.Print()\n",
    "ms.load": HEAD + "x = ms.load('graph.mindir')\n",
    "ms.load_checkpoint": CELL + "        self.x = ms.load_checkpoint('x.ckpt')\n",
    "nn.Cell called": CELL + "        self.x = nn.Cell()\n",
    "deeper in a module": HEAD + "x = ops.zeros.anything(1)\n",
    "a module's module": HEAD + "x = ms.context.os.system('true')\n",
    # what is a value may be called under another name
    "a module as a value": HEAD + "m = ms\nf = m.context.os.system\nf('true')\n",
    "a module held": CELL + "        self.m = ms\n        self.m.context.os.system('true')\n",
    "a module in a tuple": CELL + "        self.m = (ms, 1)\n        self.m[0].context.os.system('true')\n",
    "a module passed": HEAD + "def f(m):\n    return m.context.os.system('true')\n\n\ny = f(ms)\n",
    "a module by if": CONSTRUCT + "        m = ms if x else ops\n        return m.context\n",
    "a function as a value": HEAD + "f = ops.zeros\ny = f(1)\n",
    "a local called": CONSTRUCT + "        f = x.tofile\n        return f('x')\n",
    "an argument called": HEAD + "def f(g):\n    return g('true')\n",
    "an item called": CONSTRUCT + "        return x[0]('true')\n",
    "a call's result called": CONSTRUCT + "        return ops.ones(1)('true')\n",
    "a builtin as a value": CONSTRUCT + "        f = float\n        return f(x)\n",
    "max with a key": CONSTRUCT + "        return max(x, key=float)\n",
    "max with a method": CELL + "        self.a = Tensor([1])\n        self.b = max(['x'], key=self.a.tofile)\n",
    "keywords unpacked": CONSTRUCT + "        return max(x, **x)\n",
    # methods that self does not demonstrably have
    "tofile": CELL + "        self.w = Tensor([1.0])\n        self.a = self.w.asnumpy()\n        self.a.tofile('x')\n",
    "tofile of a parameter": CELL + "        self.w = Parameter(Tensor([1]))\n        self.w.asnumpy().tofile('x')\n",
    "dump": CONSTRUCT + "        return x.asnumpy().dump('x')\n",
    "a cell's own method": CONSTRUCT + "        self.register_forward_hook(x)\n        return x\n",
    "a child's own method": CELL + "        self.a = nn.Identity()\n        self.a.insert_child_to_cell('x', 1)\n",
    "named like a method": CELL + "        self.tofile = ops.Softmax(-1)\n        self.w = Tensor([1])\n"
    "        self.w.tofile('x')\n",
    "held twice": CELL + "        self.a = ops.Softmax(-1)\n        self.a = Tensor([1])\n        self.a('x')\n",
    "called before it is held": CELL + "        self.extend_repr('x')\n        self.extend_repr = ops.Softmax(-1)\n",
    "never held": CELL + "        return\n        self.extend_repr = ops.Softmax(-1)\n",
    "a list made twice": CELL.replace("Cell)", "CellList)")
    + "        super().__init__([nn.Identity()])\n        super().__init__([nn.Identity()])\n",
    "held under a condition": CELL + "        if 1:\n            self.a = Tensor([1])\n",
    "buffer replaces a cell": CONSTRUCT + "        self.register_buffer('a', x)\n        return x\n",
    "buffer of any name": CELL + "        self.register_buffer(ops.ones(1), ops.ones(1))\n",
    "a list of tensors": CELL + "        self.a = nn.CellList([Tensor([1])])\n        self.a[0]('x')\n",
    "Tensor's methods": CELL + "        self.a = Tensor.from_file('x')\n",
    # what is too much
    "a tower of powers": CELL + "        self.x = 9**9**9**9\n",
    "a shift": CELL + "        self.x = 1 << 10**12\n",
    "a long text": CELL + "        self.x = 'a' * 10**11\n",
    "a long list": CELL + "        self.x = [0] * 10**10\n",
    "a long format": CELL + "        self.x = '%9999999999d' % 1\n",
    "a long range": CELL + "        self.x = max(range(10**12))\n",
    "a long comprehension": CELL + "        self.x = [0 for _ in range(10**12)]\n",
    "comprehensions in comprehensions": CELL
    + "        self.x = [[[0 for _ in range(60000)] for _ in range(60000)] for _ in range(60000)]\n",
    "a number that is squared again and again": CONSTRUCT
    + "        a = 10\n" + "        a = a * a\n" * 40 + "        return x\n",
    "a size that is squared again and again": CONSTRUCT
    + "        a = x.shape[0]\n" + "        a = a * a\n" * 40 + "        return x\n",
    "a number that grows in a loop": CONSTRUCT + "        a = 3\n        step = Tensor(0, ms.int64)\n"
    "        while step < x.shape[0]:\n            a = a * a\n            step = step + 1\n        return x\n",
    "a power of a name": CONSTRUCT + "        a = 10**9\n        b = 10**a\n        return x\n",
    "a large tensor": CELL + "        self.x = ops.zeros((10**6, 10**6), ms.float32)\n",
    "a large tensor in construct": CONSTRUCT + "        return ops.zeros((10**12,), ms.float32)\n",
    "a large parameter": CELL + "        self.x = Parameter(initializer('zeros', (10**12,), ms.float32))\n",
    "a number of 5000 digits": CELL + "        self.x = " + "9" * 5000 + "\n",
    "lists of lists of lists": HEAD + "class A0(nn.Cell):\n    def construct(self, x):\n        return x\n\n\n"
    + "".join(
        f"class A{i}(nn.CellList):\n    def __init__(self):\n"
        f"        super().__init__([A{i - 1}() for _ in range(1000)])\n\n\n"
        for i in range(1, 9)
    ),
    "a class of itself": CELL + "        self.a = M()\n",
    "a class of the square of what it is given": HEAD + "class A(nn.Cell):\n    def __init__(self, n):\n"
    "        super().__init__()\n        self.x = Parameter(initializer('zeros', (n, n, n), ms.float32))\n\n\n"
    + CELL[len(HEAD):] + "        self.a = A(1000000)\n",
    "a class of the shape that it is given": HEAD + "class A(nn.Cell):\n    def __init__(self, n):\n"
    "        super().__init__()\n        self.x = Parameter(initializer('zeros', n, ms.float32))\n\n\n"
    + CELL[len(HEAD):] + "        self.a = A((10000000, 10000000))\n",
    "a class of a shape in a shape": HEAD + "class A(nn.Cell):\n    def __init__(self, n, m):\n"
    "        super().__init__()\n        self.x = Parameter(initializer('zeros', (n, *m), ms.float32))\n\n\n"
    + CELL[len(HEAD):] + "        self.a = A(1000000, (1000000, 1000000))\n",
    "a class given what is handed on": HEAD + "class A(nn.Cell):\n    def __init__(self, n):\n"
    "        super().__init__()\n        self.x = Parameter(initializer('zeros', (n, n, n), ms.float32))\n\n\n"
    "class B(nn.Cell):\n    def __init__(self, n):\n        super().__init__()\n        self.a = A(n)\n\n\n"
    + CELL[len(HEAD):] + "        self.b = B(1000000)\n",
    "a class given what is computed": HEAD + "class A(nn.Cell):\n    def __init__(self, n):\n"
    "        super().__init__()\n        self.x = Parameter(initializer('zeros', (n, n), ms.float32))\n\n\n"
    + CELL[len(HEAD):] + "        self.a = A(1000 * 1000 * 1000)\n",
    "a class given a keyword": HEAD + "class A(nn.Cell):\n    def __init__(self, n):\n"
    "        super().__init__()\n        self.x = Parameter(initializer('zeros', (n, n), ms.float32))\n\n\n"
    + CELL[len(HEAD):] + "        self.a = A(n=1000000000)\n",
    "a number that a constructor squares": HEAD + "class A(nn.Cell):\n    def __init__(self, n):\n"
    "        super().__init__()\n" + "        n = n * n\n" * 40 + "\n\n"
    + CELL[len(HEAD):] + "        self.a = A(10)\n",
    "a shape without end": HEAD + "class A(nn.Cell):\n    def __init__(self, n):\n"
    "        super().__init__()\n        self.x = ops.zeros(n * 10000000000)\n\n\n"
    + CELL[len(HEAD):] + "        self.a = A((1,))\n",
    "sizes that are squared again and again": CONSTRUCT
    + "        a, _ = x.shape\n" + "        a = a * a\n" * 40 + "        return x\n",
    # functions
    "a function of itself": HEAD + "def f(x):\n    return f(x)\n",
    "functions of one another": HEAD + "def f(x):\n    return g(x)\n\n\ndef g(x):\n    return f(x)\n",
    "functions that call the next twice": HEAD + "def f0(x):\n    return x\n\n\n"
    + "".join(f"def f{i}(x):\n    return f{i - 1}(f{i - 1}(x))\n\n\n" for i in range(1, 40)),
    "a function a million times in a function": HEAD + "def f(x):\n    return x\n\n\ndef g(x):\n"
    "    return [f(x) for _ in range(60000)]\n\n\ndef h(x):\n    return [g(x) for _ in range(60000)]\n",
    "a function that hides another": HEAD + "def f(x):\n    return x\n\n\ndef f(x):\n    return x\n",
    "a function called as a class": HEAD + "class M(nn.Cell):\n    pass\n\n\ndef M(x):\n    return x\n",
    "a function called as a module": HEAD + "def ops(x):\n    return x\n",
    "a function called as max": HEAD + "def max(x):\n    return x\n",
    "a function with a function in it": HEAD + "def f(x):\n    def g(x):\n        return x\n    return g(x)\n",
    "a function as an argument": HEAD + "def f(x):\n    return x\n\n\ndef g(x):\n    return x(x)\n\n\n"
    "def h(x):\n    return g(f)\n",
    "a function that binds what it calls": HEAD + "def f(x):\n    return x\n\n\n"
    "def g(x):\n    f = x\n    return f(x)\n",
    "a function with a cell": HEAD + "def f(self, x):\n    return self.tofile(x)\n",
    "a function with a default that runs": HEAD + "def f(x, y=ops.ones(10**12)):\n    return x\n",
    # syntax
    "f-string": CONSTRUCT + "        return f'{x}'\n",
    "dict": CONSTRUCT + "        return {1: x}\n",
    "set": CONSTRUCT + "        return {x}\n",
    "generator": CONSTRUCT + "        return max(y for y in x)\n",
    "comprehension over values": CONSTRUCT + "        return [y.tofile('x') for y in x]\n",
    "not Python": "class\n",
    "null byte": "x = 1\0\n",
    "nested too deeply": HEAD + "x = " + "(" * 5000 + "1" + ")" * 5000 + "\n",
    "many signs": HEAD + "x = ops.ones(" + "-" * 20000 + "1)\n",
}  # fmt: skip
