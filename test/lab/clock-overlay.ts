/**
 * Go programs whose wall clock can be set while they run.
 *
 * Go reads the kernel's clock without the C library, so libfaketime cannot
 * reach it. Instead the toolchain is told to compile another `time` package
 * (`go build -overlay`): `time.Now` adds an offset, read from a page of memory
 * that the program shares with whoever sets its clock. Monotonic time, and with
 * it every timer and timeout, stays true; so does every other process.
 */
import { closeSync, constants, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";

/** Names the file with the offset, to a program that was built so. */
export const OFFSET_VARIABLE = "LAB_CLOCK_OFFSET";

const NOW = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n";

/** Without its file the program ends: a clock that is right by mistake would prove nothing. */
const OFFSET_SOURCE = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var labOffset = mapLabOffset()

// In seconds; the page is shared with whoever sets the clock.
func labOffsetSeconds() int64 { return atomic.LoadInt64(labOffset) }

func mapLabOffset() *int64 {
	name, _ := syscall.Getenv("${OFFSET_VARIABLE}")
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("time: cannot open ${OFFSET_VARIABLE} " + name)
	}
	page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("time: cannot map ${OFFSET_VARIABLE} " + name)
	}
	syscall.Close(fd)
	return (*int64)(unsafe.Pointer(unsafe.SliceData(page)))
}
`;

/**
 * Writes the overlay for `go build -overlay`.
 *
 * @param directory where its folder is made.
 * @param goRoot of the toolchain that will read it.
 * @returns the path of the overlay's list.
 * @throws {Error} when the toolchain's `time.Now` is not the one that is known here.
 */
export function clockOverlay(directory: string, goRoot: string): string {
  const folder = join(directory, "clock-overlay");
  mkdirSync(folder, { recursive: true });
  const write = (name: string, text: string) => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const source = readFileSync(join(goRoot, "src/time/time.go"), "utf8");
  if (source.split(NOW).length !== 2) throw new Error(`Cannot set clocks: time.Now of ${goRoot} is another one`);
  const Replace = {
    [join(goRoot, "src/time/time.go")]: write("time.go", source.replace(NOW, `${NOW}\tsec += labOffsetSeconds()\n`)),
    [join(goRoot, "src/time/lab_offset.go")]: write("lab_offset.go", OFFSET_SOURCE),
  };
  return write("overlay.json", JSON.stringify({ Replace }));
}

/** Sets the clock of the programs that share this file, from now on; in whole seconds. */
export function writeOffset(path: string, seconds: number): void {
  const bytes = new BigInt64Array([BigInt(Math.round(seconds))]);
  // In place: a file that is made shorter takes its page away from those who read it.
  const file = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o644);
  writeSync(file, bytes, 0, 8, 0);
  closeSync(file);
}
