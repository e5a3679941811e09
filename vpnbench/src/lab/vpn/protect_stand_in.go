// Package protect stands in for a module of that name that the module proxy does not serve. It
// restricts a process on OpenBSD and does nothing elsewhere; this does nothing anywhere.
package protect

// Pledge does nothing.
func Pledge(promises string) error { return nil }
