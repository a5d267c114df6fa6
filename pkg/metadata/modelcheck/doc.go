// Package modelcheck explores the commit protocol: the real code of pkg/metadata
// runs in a handful of actors over a simulated filesystem and simulated objects,
// and a scheduler decides before each of their calls who goes on, and who dies.
//
// See docs/model-check.md for what is modelled, what is not, and how to run long.
package modelcheck
