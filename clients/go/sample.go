package dwcp

import (
	"fmt"
	"math"
	"unicode/utf8"
)

// NetworkSample is one telemetry record of one link. The JSON names are those of the record on dwcp.telemetry.
//
// Timestamp is UTC seconds; in JSON it may also be an RFC 3339 text. Of the other fields any may be missing: nil or NaN for a number, ""
// for a text. At least one of ThroughputMbps, RTTMs, PacketLoss and JitterMs is needed. NodeID, PeerID and LinkType say which link it is;
// Predict does not look at the first two. BandwidthMbps and LatencyMs are older names, used where ThroughputMbps and RTTMs are missing.
type NetworkSample struct {
	Timestamp        float64  `json:"timestamp"`
	Region           string   `json:"region,omitempty"`
	AZ               string   `json:"az,omitempty"`
	LinkType         string   `json:"link_type,omitempty"`
	NodeID           string   `json:"node_id,omitempty"`
	PeerID           string   `json:"peer_id,omitempty"`
	RTTMs            *float64 `json:"rtt_ms,omitempty"`
	JitterMs         *float64 `json:"jitter_ms,omitempty"`
	ThroughputMbps   *float64 `json:"throughput_mbps,omitempty"`
	BytesTx          *float64 `json:"bytes_tx,omitempty"`
	BytesRx          *float64 `json:"bytes_rx,omitempty"`
	PacketLoss       *float64 `json:"packet_loss,omitempty"` // 0 to 1
	Retransmits      *float64 `json:"retransmits,omitempty"`
	CongestionWindow *float64 `json:"congestion_window,omitempty"`
	QueueDepth       *float64 `json:"queue_depth,omitempty"`
	DWCPMode         string   `json:"dwcp_mode,omitempty"`
	NetworkTier      string   `json:"network_tier,omitempty"`
	TransportType    string   `json:"transport_type,omitempty"`
	TimeOfDay        *float64 `json:"time_of_day,omitempty"` // hours, 0 to 24; follows from the timestamp where missing
	DayOfWeek        *float64 `json:"day_of_week,omitempty"` // Monday is 0; follows from the timestamp where missing
	BandwidthMbps    *float64 `json:"bandwidth_mbps,omitempty"`
	LatencyMs        *float64 `json:"latency_ms,omitempty"`
}

// Problem says why a sample is no valid telemetry, as Predict would; it is empty if nothing is wrong.
func (s *NetworkSample) Problem() string {
	_, problem := s.row()
	return problem
}

// Float is a measured number for a NetworkSample: dwcp.Float(20.5).
func Float(value float64) *float64 { return &value }

// Limits of a valid record, as the daemon has them (streams/records/validate.py).
const (
	earliestS    = 631_152_000 // 1990-01-01: anything before is a count from boot, not a UTC time
	latestS      = 1e11        // the year 5138; milliseconds passed it in 1973
	mostTextRune = 256
)

var lastHour = math.Nextafter32(24, 0)

// row is a sample as the graph takes it: the columns NUMERIC, NaN where not measured, and CATEGORIES, "" where missing.
type row struct {
	timeS      float64
	numeric    [numericColumns]float32
	categories [categoryColumns]string
}

// row checks a sample and fills in the older names. The problem is a short sentence, empty if there is none.
func (s *NetworkSample) row() (r row, problem string) {
	if r.timeS = s.Timestamp; !(r.timeS >= earliestS && r.timeS <= latestS) {
		return r, timestampProblem(r.timeS)
	}
	numbers := [numericColumns]struct {
		name         string
		value, older *float64
		olderName    string
		high         float64
	}{
		{"throughput_mbps", s.ThroughputMbps, s.BandwidthMbps, "bandwidth_mbps", math.MaxFloat32},
		{"rtt_ms", s.RTTMs, s.LatencyMs, "latency_ms", math.MaxFloat32},
		{"packet_loss", s.PacketLoss, nil, "", 1},
		{"jitter_ms", s.JitterMs, nil, "", math.MaxFloat32},
		{"congestion_window", s.CongestionWindow, nil, "", math.MaxFloat32},
		{"queue_depth", s.QueueDepth, nil, "", math.MaxFloat32},
		{"retransmits", s.Retransmits, nil, "", math.MaxFloat32},
		{"bytes_tx", s.BytesTx, nil, "", math.MaxFloat32},
		{"bytes_rx", s.BytesRx, nil, "", math.MaxFloat32},
		{"time_of_day", s.TimeOfDay, nil, "", 24},
		{"day_of_week", s.DayOfWeek, nil, "", 6},
	}
	measured := false
	for at, number := range numbers {
		value, name := orNaN(number.value), number.name
		if math.IsNaN(value) && number.older != nil {
			value, name = *number.older, number.olderName
		}
		if value < 0 || value > number.high {
			return r, fmt.Sprintf("%s is %v, allowed 0 to %.3g", name, value, number.high)
		}
		r.numeric[at] = float32(value)
		measured = measured || at < targets && !math.IsNaN(value)
	}
	if hour := &r.numeric[9]; *hour > lastHour {
		*hour = lastHour // 24 is the last instant of its day
	}
	if !measured {
		return r, "none of throughput_mbps, rtt_ms, packet_loss, jitter_ms is present: at least one is needed"
	}
	r.categories = [categoryColumns]string{s.Region, s.AZ, s.LinkType, s.DWCPMode, s.NetworkTier, s.TransportType}
	for at, text := range r.categories {
		if utf8.RuneCountInString(text) > mostTextRune {
			return r, fmt.Sprintf("%s is longer than %d characters", categoryNames[at], mostTextRune)
		}
	}
	return r, ""
}

func orNaN(value *float64) float64 {
	if value == nil {
		return math.NaN()
	}
	return *value
}

func timestampProblem(timeS float64) string {
	switch {
	case timeS == 0 || math.IsNaN(timeS):
		return "timestamp is missing"
	case timeS > latestS && !math.IsInf(timeS, 1):
		return fmt.Sprintf("timestamp is %v: that looks like milliseconds or less, UTC seconds are needed", timeS)
	}
	return fmt.Sprintf("timestamp is %v, allowed %d (1990) to %.0f, in UTC seconds", timeS, int(earliestS), latestS)
}
