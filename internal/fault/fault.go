// Package fault names the places between durable steps where a crash, an error
// or a pause can be put. Without arming a point costs one atomic load.
package fault
