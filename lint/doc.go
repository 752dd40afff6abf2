// Package lint holds rules over a whole config: what no single component can see, because it lies between the input and the
// output, or between two streams.
//
// Benthos lints components one by one. That a `buffer` acknowledges records which Pulsar has never seen, that a `split` lets
// parts of a batch overtake each other, that two streams share one lease table: each component is right by itself there.
// The package also finds what Benthos' own lint lets pass and the start then refuses: numbers in quotes, durations that are
// none.
//
// Check is a pure function of the config; reading files and printing is for the caller. A finding says where it is, what
// happens, and what to write instead.
package lint
