// Package dwcp forecasts the next throughput, round-trip time, packet loss and jitter of a network link, with the models that dwcp-learner
// publishes.
//
// Open reads a models folder and proves the live version: signature, hashes, and its golden vectors run through ONNX Runtime. Predict
// takes raw telemetry rows; features, scaling and units are inside the graph. Follow changes to each new version while requests run.
package dwcp
