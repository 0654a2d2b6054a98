//go:build race

package toxics

import "time"

// The race detector makes all slower, but what waits. See pace_test.go.
const (
	groupTimeout = 3 * time.Second
	queryTimeout = 6 * time.Second
	slack        = 6 * time.Second
	atOnce       = 4
)
