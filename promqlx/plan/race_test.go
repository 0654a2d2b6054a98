//go:build race

package plan

// raceDetector is whether the tests run with the race detector.
const raceDetector = true
