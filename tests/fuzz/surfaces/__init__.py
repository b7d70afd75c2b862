"""The surfaces, a module each: what `SURFACE` feeds is a reader that users reach, never a part of one."""
