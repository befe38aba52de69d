"""A few lines of WebAssembly beside the interpreter, which call it as often as a step needs.

A step takes a buffer for each of its arguments and three more calls of the interpreter. Made from Python, each is a
crossing into the library: it costs time by itself, gives Python's global lock away, and getting that back takes up to
5 ms while the Trio thread is busy. The trampoline makes two crossings of them; without it a small step takes 2.5 to 3
times as long, and up to 4 times beside a busy thread. `python -m benchmarks.trampoline` measures it.

`prepare` frees what the last step gave and allocates one buffer per size in the frame, whose places it leaves there;
`invoke` runs the step with them. Buffers, in order: the fields of the parameters and their record, then the arguments.
"""

from __future__ import annotations

from typing import Final

BUFFERS: Final = 9
TRAMPOLINE_SIZES: Final = f"<{BUFFERS}I"
TRAMPOLINE_PLACES: Final = 64  # bytes into the frame
TRAMPOLINE_RESULT: Final = 128

TRAMPOLINE: Final = f"""
(module
  (import "avm" "allocate" (func $allocate (param i32 i32) (result i32)))
  (import "avm" "invoke" (func $invoke (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "avm" "get_result_ptr" (func $result (result i32)))
  (import "avm" "release_objects" (func $release))
  (memory (export "frame") 1 1)
  (func (export "prepare") (local $at i32)
    (call $release)
    (loop $next
      (if (i32.load (local.get $at))
        (then
          (i32.store offset={TRAMPOLINE_PLACES} (local.get $at)
            (call $allocate (i32.load (local.get $at)) (i32.const 1))))
        (else (i32.store offset={TRAMPOLINE_PLACES} (local.get $at) (i32.const 0))))
      (local.set $at (i32.add (local.get $at) (i32.const 4)))
      (br_if $next (i32.lt_u (local.get $at) (i32.const {4 * BUFFERS})))))
  (func $place (param $buffer i32) (result i32)
    (i32.load offset={TRAMPOLINE_PLACES} (i32.shl (local.get $buffer) (i32.const 2))))
  (func $size (param $buffer i32) (result i32)
    (i32.load (i32.shl (local.get $buffer) (i32.const 2))))
  (func (export "invoke")
    (call $invoke
      (call $place (i32.const 5)) (call $size (i32.const 5))
      (call $place (i32.const 6)) (call $size (i32.const 6))
      (call $place (i32.const 7)) (call $size (i32.const 7))
      (call $place (i32.const 4))
      (call $place (i32.const 8)) (call $size (i32.const 8)))
    (i32.store (i32.const {TRAMPOLINE_RESULT}) (call $result))))
"""
