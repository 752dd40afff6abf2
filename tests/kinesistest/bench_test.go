package kinesistest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// BenchmarkReplay reads a replayed stream without decoding it: per record it is what the server costs, HTTP and loopback
// included, of which the reader's part is copying bytes out of a socket.
func BenchmarkReplay(b *testing.B) {
	for _, size := range []int{100, 1024, 10 << 10} {
		b.Run(fmt.Sprintf("%d bytes", size), func(b *testing.B) {
			s := NewServer()
			defer s.Close()
			const perResponse = 1000
			if _, err := s.CreateReplay("bench", ReplayOptions{Shards: 1, RecordSize: size, PerResponse: perResponse}); err != nil {
				b.Fatal(err)
			}
			iterator := *replayIterator(b, s.Client(), iteratorInput(shard0, "TRIM_HORIZON"))
			client := &http.Client{Transport: s.transport}
			body := fmt.Sprintf(`{"ShardIterator":%q}`, iterator)
			for n := 0; n < b.N; n += perResponse {
				r, err := http.NewRequest(http.MethodPost, s.URL(), strings.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				r.Header.Set("X-Amz-Target", targetPrefix+"GetRecords")
				response, err := client.Do(r)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != 200 {
					b.Fatal(response.Status, err)
				}
				response.Body.Close()
			}
			b.SetBytes(int64(size))
		})
	}
}

// BenchmarkReplayEncoding is the part of it that writes the answers.
func BenchmarkReplayEncoding(b *testing.B) {
	for _, size := range []int{100, 1024, 10 << 10} {
		b.Run(fmt.Sprintf("%d bytes", size), func(b *testing.B) {
			s := NewServer()
			defer s.Close()
			if _, err := s.CreateReplay("bench", ReplayOptions{Shards: 1, RecordSize: size, PerResponse: 1000}); err != nil {
				b.Fatal(err)
			}
			sh := s.streams["bench"].shards[0]
			position := uint64(1)
			for n := 0; n < b.N; n += 1000 {
				rd := sh.readFrom(position, maxReadRecords, maxReadBytes, s.now(), 0)
				position = rd.next
				buffers.Put(encodeReading(&rd, "", nil))
			}
			b.SetBytes(int64(size))
		})
	}
}

// BenchmarkReplaySubscription is BenchmarkReplay for enhanced fan-out.
func BenchmarkReplaySubscription(b *testing.B) {
	for _, size := range []int{100, 1024, 10 << 10} {
		for name, prior := range map[string]bool{"HTTP1": false, "HTTP2": true} {
			b.Run(fmt.Sprintf("%d bytes/%s", size, name), func(b *testing.B) {
				s := NewServer()
				defer s.Close()
				if _, err := s.CreateReplay("bench", ReplayOptions{Shards: 1, RecordSize: size, PerResponse: 1000}); err != nil {
					b.Fatal(err)
				}
				arn, err := s.RegisterConsumer("bench", "reader")
				if err != nil {
					b.Fatal(err)
				}
				client := &http.Client{Transport: s.transport}
				if prior {
					client.Transport = s.transport2
				}
				body := fmt.Sprintf(`{"ConsumerARN":%q,"ShardId":%q,"StartingPosition":{"Type":"TRIM_HORIZON"}}`, arn, shard0)
				r, err := http.NewRequest(http.MethodPost, s.URL(), strings.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				r.Header.Set("X-Amz-Target", targetPrefix+"SubscribeToShard")
				response, err := client.Do(r)
				if err != nil {
					b.Fatal(err)
				}
				defer response.Body.Close()
				perRecord := int64(size)*4/3 + 160 // about what one is long in a frame
				if n, err := io.CopyN(io.Discard, response.Body, perRecord*int64(b.N)); err != nil {
					b.Fatal(n, err)
				}
				b.SetBytes(int64(size))
			})
		}
	}
}
