package dwcp

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"testing"
)

// readingsVariable makes the test binary a program: what the client reads in each value of standard input, on standard output.
const readingsVariable = "CLIENT_READINGS"

func TestMain(m *testing.M) {
	if os.Getenv(readingsVariable) == "" {
		os.Exit(m.Run())
	}
	if err := readings(bufio.NewReaderSize(os.Stdin, 1<<20), bufio.NewWriterSize(os.Stdout, 1<<20)); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

// readings answers each value (uint32 length and bytes, as all numbers in little endian): one zero byte for a value that is no telemetry,
// else a one, float64 time, float32 of the 11 columns NUMERIC, and node_id, peer_id and the 6 categories, each uint32 length and bytes.
// A length of 2^32-1 is a request to send what was answered so far.
func readings(input *bufio.Reader, output *bufio.Writer) error {
	for {
		var length uint32
		if err := binary.Read(input, binary.LittleEndian, &length); errors.Is(err, io.EOF) {
			return output.Flush()
		} else if err != nil {
			return err
		}
		if length == math.MaxUint32 {
			if err := output.Flush(); err != nil {
				return err
			}
			continue
		}
		value := make([]byte, length)
		if _, err := io.ReadFull(input, value); err != nil {
			return err
		}
		if _, err := output.Write(reading(value)); err != nil {
			return err
		}
	}
}

func reading(value []byte) []byte {
	sample, err := DecodeRecord(value)
	if err != nil {
		return []byte{0}
	}
	r, _ := sample.row() // DecodeRecord has looked for problems
	answer := binary.LittleEndian.AppendUint64([]byte{1}, math.Float64bits(r.timeS))
	for _, number := range r.numeric {
		answer = binary.LittleEndian.AppendUint32(answer, math.Float32bits(number))
	}
	for _, text := range append([]string{sample.NodeID, sample.PeerID}, r.categories[:]...) {
		answer = binary.LittleEndian.AppendUint32(answer, uint32(len(text)))
		answer = append(answer, text...)
	}
	return answer
}
