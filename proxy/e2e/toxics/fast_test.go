//go:build !e2e

package toxics

import "time"

const (
	// full tells that every fault is tried at every place. Else some are, at all places but one.
	full = false
	// reloads is how often the configuration changes under load.
	reloads = 100
	// spell is how long the times of answers are looked at.
	spell = 300 * time.Millisecond
)
