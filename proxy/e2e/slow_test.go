//go:build e2e

package e2e

// cutPositions is at how many places answers are cut.
const cutPositions = 12

// slowTests tells that these are among the tests.
const slowTests = true
