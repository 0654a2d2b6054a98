package config

// PartialResponse is what happens to an answer when a group is missing.
type PartialResponse string

// The values of partial_response.
const (
	PartialWarn  PartialResponse = "warn"  // answer from the others, with a warning
	PartialError PartialResponse = "error" // fail
)

// Pushdown is whether replicas are asked to evaluate expressions.
type Pushdown string

// The values of pushdown.
const (
	PushdownProvable Pushdown = "provable" // what is provably equal
	PushdownOff      Pushdown = "off"      // nothing: all is evaluated here
)
