//go:build e2e

package toxics

import "time"

const (
	// full tells that every fault is tried at every place.
	full = true
	// reloads is how often the configuration changes under load.
	reloads = 1000
	// spell is how long the times of answers are looked at.
	spell = 3 * time.Second
)
