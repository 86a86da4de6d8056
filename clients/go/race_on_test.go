//go:build race

package dwcp

const raceDetector = true
