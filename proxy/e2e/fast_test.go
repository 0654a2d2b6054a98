//go:build !e2e

package e2e

// cutPositions is at how many places answers are cut. The slow run tries more.
const cutPositions = 2

// slowTests reports whether the slow tests are among the tests.
const slowTests = false
