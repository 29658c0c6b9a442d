"""What Numba has no word for: one rounding for a * b + c, an `exp` that vectorises, and flushing denormal numbers."""

import math
import platform
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = [
    "exp32",
    "exp64",
    "flush_denormals",
    "fma",
    "from_bfloat16",
    "from_float16",
    "restore_denormals",
    "tanh32",
    "tanh64",
    "to_bfloat16",
    "to_float16",
]

_X86 = platform.machine().lower() in ("x86_64", "amd64")
_ARM = platform.machine().lower() in ("aarch64", "arm64")
_MXCSR_FLUSH = 0x8040  # flush results to zero, and take denormal operands as zero
_FPCR_FLUSH = 1 << 24


# Numba hands intrinsics a typing context of its own; callers give the rest
_declared: Any = intrinsic


@_declared
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return a(a, a, a), generate


@_declared
def from_float16(typingctx: Any, bits: Any) -> Any:
    """The float32 of a float16's bits, an int16."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.int16), generate


@_declared
def to_float16(typingctx: Any, value: Any) -> Any:
    """The bits, an int16, of the float16 nearest to a float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.int16(types.float32), generate


@_declared
def from_bfloat16(typingctx: Any, bits: Any) -> Any:
    """The float32 of a bfloat16's bits, an int16: they are its upper half."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i32 = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(args[0], i32), ir.Constant(i32, 16)), ir.FloatType())

    return types.float32(types.int16), generate


@_declared
def to_bfloat16(typingctx: Any, value: Any) -> Any:
    """The bits, an int16, of the bfloat16 nearest to a float32, to even between two; NaN stays NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i32, i16 = ir.IntType(32), ir.IntType(16)
        whole = builder.bitcast(args[0], i32)
        upper = builder.lshr(whole, ir.Constant(i32, 16))
        odd = builder.and_(upper, ir.Constant(i32, 1))
        rounded = builder.add(whole, builder.add(odd, ir.Constant(i32, 0x7FFF)))
        nearest = builder.trunc(builder.lshr(rounded, ir.Constant(i32, 16)), i16)
        # rounding could carry a NaN's bits over into infinity
        return builder.select(builder.fcmp_unordered("uno", args[0], args[0]), ir.Constant(i16, 0x7FC0), nearest)

    return types.int16(types.float32), generate


@_declared
def _power_of_two32(typingctx: Any, exponent: Any) -> Any:
    """2.0 ** exponent as float32, for -126 <= exponent <= 127."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i32 = ir.IntType(32)
        shifted = builder.shl(builder.add(args[0], ir.Constant(i32, 127)), ir.Constant(i32, 23))
        return builder.bitcast(shifted, ir.FloatType())

    return types.float32(types.int32), generate


@_declared
def _power_of_two64(typingctx: Any, exponent: Any) -> Any:
    """2.0 ** exponent as float64, for -1022 <= exponent <= 1023."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i64 = ir.IntType(64)
        shifted = builder.shl(builder.add(args[0], ir.Constant(i64, 1023)), ir.Constant(i64, 52))
        return builder.bitcast(shifted, ir.DoubleType())

    return types.float64(types.int64), generate


@_declared
def _truncated32(typingctx: Any, value: Any) -> Any:
    """A whole float32 as int32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fptosi(args[0], ir.IntType(32))

    return types.int32(types.float32), generate


@_declared
def flush_denormals(typingctx: Any) -> Any:
    """Make this thread treat denormal numbers as zero; return the mode before, for `restore_denormals`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _X86:
            before = _read_mxcsr(builder)
            _write_mxcsr(builder, builder.or_(before, ir.Constant(ir.IntType(32), _MXCSR_FLUSH)))
            return builder.zext(before, ir.IntType(64))
        if _ARM:
            before = _fpcr(builder, "llvm.aarch64.get.fpcr", ir.IntType(64), [], [])
            mode = builder.or_(before, ir.Constant(ir.IntType(64), _FPCR_FLUSH))
            _fpcr(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), [ir.IntType(64)], [mode])
            return before
        return ir.Constant(ir.IntType(64), 0)

    return types.int64(), generate


@_declared
def restore_denormals(typingctx: Any, mode: Any) -> Any:
    """Give this thread the mode back that `flush_denormals` returned."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _X86:
            _write_mxcsr(builder, builder.trunc(args[0], ir.IntType(32)))
        elif _ARM:
            _fpcr(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), [ir.IntType(64)], [args[0]])
        return context.get_dummy_value()

    return types.void(types.int64), generate


def _function(builder: Any, name: str, result: Any, arguments: Any) -> Any:
    return builder.module.declare_intrinsic(name, (), ir.FunctionType(result, arguments))


def _fpcr(builder: Any, name: str, result: Any, arguments: Any, values: Any) -> Any:
    return builder.call(_function(builder, name, result, arguments), values)


def _slot(builder: Any) -> Any:
    with builder.goto_entry_block():
        return builder.alloca(ir.IntType(32))


def _read_mxcsr(builder: Any) -> Any:
    slot = _slot(builder)
    pointer = ir.IntType(8).as_pointer()
    store = _function(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), [pointer])
    builder.call(store, [builder.bitcast(slot, pointer)])
    return builder.load(slot)


def _write_mxcsr(builder: Any, value: Any) -> None:
    slot = _slot(builder)
    builder.store(value, slot)
    pointer = ir.IntType(8).as_pointer()
    load = _function(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), [pointer])
    builder.call(load, [builder.bitcast(slot, pointer)])


# exp(x) = 2**n exp(r) with |r| <= ln(2) / 2, and exp(r) by its Taylor polynomial; 2**n in two factors, so that results
# near the ends of the range come out right
_LOG2_E = 1.4426950408889634
_LN2_HIGH32, _LN2_LOW32 = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LN2_HIGH64, _LN2_LOW64 = 6.93145751953125e-1, 1.42860682030941723212e-6
_LOG2_E32, _LOWEST32, _HIGHEST32 = np.float32(_LOG2_E), np.float32(-150.0), np.float32(130.0)
_A1 = np.float32(1.0)
_A2, _A3, _A4 = np.float32(1 / 2), np.float32(1 / 6), np.float32(1 / 24)
_A5, _A6, _A7 = np.float32(1 / 120), np.float32(1 / 720), np.float32(1 / 5040)


@njit(error_model="numpy")
def exp32(x):  # type: ignore[no-untyped-def]
    """e**x in float32, within one unit in the last place; NaN stays NaN."""
    y = _LOWEST32 if x < _LOWEST32 else x
    y = _HIGHEST32 if y > _HIGHEST32 else y
    n = np.rint(y * _LOG2_E32)
    r = fma(-n, _LN2_LOW32, fma(-n, _LN2_HIGH32, y))
    p = fma(fma(fma(fma(fma(_A7, r, _A6), r, _A5), r, _A4), r, _A3), r, _A2)
    s = _A1 + r
    p = s + fma(r * r, p, (_A1 - s) + r)  # what 1 + r lost in rounding joins the small terms
    n = n if n == n else _A1
    whole = _truncated32(n)
    half = whole >> np.int32(1)
    return p * _power_of_two32(half) * _power_of_two32(whole - half)


@njit(error_model="numpy")
def exp64(x):  # type: ignore[no-untyped-def]
    """e**x in float64, within one unit in the last place; NaN stays NaN."""
    y = -800.0 if x < -800.0 else x
    y = 800.0 if y > 800.0 else y
    n = np.rint(y * _LOG2_E)
    r = fma(-n, _LN2_LOW64, fma(-n, _LN2_HIGH64, y))
    p = 1 / 6227020800
    p = fma(p, r, 1 / 479001600)
    p = fma(p, r, 1 / 39916800)
    p = fma(p, r, 1 / 3628800)
    p = fma(p, r, 1 / 362880)
    p = fma(p, r, 1 / 40320)
    p = fma(p, r, 1 / 5040)
    p = fma(p, r, 1 / 720)
    p = fma(p, r, 1 / 120)
    p = fma(p, r, 1 / 24)
    p = fma(p, r, 1 / 6)
    p = fma(p, r, 0.5)
    s = 1.0 + r
    p = s + fma(r * r, p, (1.0 - s) + r)
    n = n if n == n else 1.0
    whole = np.int64(n)
    half = whole >> np.int64(1)
    return p * _power_of_two64(half) * _power_of_two64(whole - half)


_T0, _T1, _T2, _T3, _T4 = np.float32(315), np.float32(14), np.float32(945), np.float32(420), np.float32(15)
_SMALL, _SATURATED, _TWO = np.float32(0.55), np.float32(10.0), np.float32(2.0)


@njit(error_model="numpy")
def tanh32(x):  # type: ignore[no-untyped-def]
    """The hyperbolic tangent in float32, within two units in the last place; NaN stays NaN."""
    a = abs(x)
    a = _SATURATED if a > _SATURATED else a
    s = a * a
    # Lambert's continued fraction, cut after 9, as x less a small correction: nothing cancels near 0
    near = a - a * (s * (_T0 + _T1 * s) / (_T2 + s * (_T3 + _T4 * s)))
    far = _A1 - _TWO / (exp32(a + a) + _A1)
    y = near if a < _SMALL else far
    return -y if x < np.float32(0.0) else y


@njit(error_model="numpy")
def tanh64(x):  # type: ignore[no-untyped-def]
    """The hyperbolic tangent in float64, the C library's."""
    return math.tanh(x)
