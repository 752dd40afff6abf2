package kinesistest

import (
	"strings"
	"time"
)

// operations are those of the API that the server knows, by the name in X-Amz-Target.
var operations = map[string]operation{
	"CreateStream":                  decoder[createStreamRequest, *createStreamRequest]{},
	"DecreaseStreamRetentionPeriod": decoder[decreaseRetentionRequest, *decreaseRetentionRequest]{},
	"DeleteStream":                  decoder[deleteStreamRequest, *deleteStreamRequest]{},
	"DeregisterStreamConsumer":      decoder[deregisterConsumerRequest, *deregisterConsumerRequest]{},
	"DescribeStream":                decoder[describeStreamRequest, *describeStreamRequest]{},
	"DescribeStreamConsumer":        decoder[describeConsumerRequest, *describeConsumerRequest]{},
	"DescribeStreamSummary":         decoder[describeSummaryRequest, *describeSummaryRequest]{},
	"GetRecords":                    decoder[getRecordsRequest, *getRecordsRequest]{},
	"GetShardIterator":              decoder[getIteratorRequest, *getIteratorRequest]{},
	"IncreaseStreamRetentionPeriod": decoder[increaseRetentionRequest, *increaseRetentionRequest]{},
	"ListShards":                    decoder[listShardsRequest, *listShardsRequest]{},
	"ListStreamConsumers":           decoder[listConsumersRequest, *listConsumersRequest]{},
	"ListStreams":                   decoder[listStreamsRequest, *listStreamsRequest]{},
	"MergeShards":                   decoder[mergeShardsRequest, *mergeShardsRequest]{},
	"PutRecord":                     decoder[putRecordRequest, *putRecordRequest]{},
	"PutRecords":                    decoder[putRecordsRequest, *putRecordsRequest]{},
	"RegisterStreamConsumer":        decoder[registerConsumerRequest, *registerConsumerRequest]{},
	"SplitShard":                    decoder[splitShardRequest, *splitShardRequest]{},
	"StartStreamEncryption":         decoder[startEncryptionRequest, *startEncryptionRequest]{},
	"StopStreamEncryption":          decoder[stopEncryptionRequest, *stopEncryptionRequest]{},
	"SubscribeToShard":              decoder[subscribeRequest, *subscribeRequest]{},
	"UpdateMaxRecordSize":           decoder[updateMaxRecordSizeRequest, *updateMaxRecordSizeRequest]{},
	"UpdateShardCount":              decoder[updateShardCountRequest, *updateShardCountRequest]{},
	"UpdateStreamMode":              decoder[updateStreamModeRequest, *updateStreamModeRequest]{},
}

// streamRef is how most requests name their stream: by name, by ARN, or by both if they agree.
type streamRef struct{ StreamName, StreamARN string }

func (r *streamRef) about(*Server) (stream, shard string) { return r.named(), "" }

func (r *streamRef) named() string {
	if r.StreamName != "" {
		return r.StreamName
	}
	_, name, _ := strings.Cut(r.StreamARN, ":stream/")
	return name
}

// resolve finds the stream in whatever state it is. Called with mu held.
func (r *streamRef) resolve(s *Server, now time.Time) (*stream, *apiError) {
	name := r.named()
	if err := checkName("streamName", name); err != nil {
		return nil, err
	}
	if r.StreamARN != "" && r.StreamARN != s.streamARN(name) {
		return nil, errorf(ResourceNotFound, "Stream %s under account %s not found.", r.StreamARN, s.account)
	}
	return s.find(name, now)
}

// serving finds a stream that has records.
func (r *streamRef) serving(s *Server, now time.Time) (*stream, *apiError) {
	st, err := r.resolve(s, now)
	if err != nil {
		return nil, err
	}
	return s.serving(st.name, now)
}

func (s *Server) streamARN(name string) string {
	return "arn:aws:kinesis:" + s.region + ":" + s.account + ":stream/" + name
}

// checkName applies the rule for names of streams.
func checkName(field, name string) *apiError {
	valid := len(name) >= 1 && len(name) <= 128
	for _, c := range name {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_.-", c)) {
			valid = false
		}
	}
	if !valid {
		return errorf(Validation, "1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: "+
			"Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]{1,128}", name, field)
	}
	return nil
}

// checkRange applies a constraint on a number that the request has given.
func checkRange(field string, value *int, low, high int) *apiError {
	switch {
	case value == nil:
	case *value > high:
		return errorf(Validation, "1 validation error detected: Value '%d' at '%s' failed to satisfy constraint: "+
			"Member must have value less than or equal to %d", *value, field, high)
	case *value < low:
		return errorf(Validation, "1 validation error detected: Value '%d' at '%s' failed to satisfy constraint: "+
			"Member must have value greater than or equal to %d", *value, field, low)
	}
	return nil
}
