package kinesistest

import (
	"time"
	"unicode/utf8"
)

const (
	maxPutEntries = 500
	maxPutBytes   = 10 << 20 // of one PutRecords request, partition keys included
)

type entry struct {
	Data            []byte
	PartitionKey    string
	ExplicitHashKey string
}

// place is the shard for a record. Called with mu held, like put.
func (st *stream) place(partitionKey, explicitHashKey string) (*shard, *apiError) {
	if n := utf8.RuneCountInString(partitionKey); n < 1 || n > 256 {
		return nil, errorf(Validation, "1 validation error detected: Value '%s' at 'partitionKey' failed to satisfy constraint: "+
			"Member must have length between 1 and 256", partitionKey)
	}
	if st.shards[0].replay != nil {
		return nil, errorf(InvalidArgument, "Stream %s is replayed: it cannot be put to.", st.name)
	}
	key := partitionHash(partitionKey)
	if explicitHashKey != "" {
		var ok bool
		if key, ok = parseHashKey(explicitHashKey); !ok {
			return nil, errorf(InvalidArgument, "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was %s", explicitHashKey)
		}
	}
	return st.route(key), nil
}

func (st *stream) put(sh *shard, r Record, now time.Time) Record {
	if r.EncryptionType = ""; st.keyID != "" {
		r.EncryptionType = "KMS"
	}
	sh.trim(st, now)
	return sh.append(r, now)
}

// checkSize applies the limit on a record: its data and partition key together.
func (st *stream) checkSize(e *entry) *apiError {
	if size := len(e.Data) + len(e.PartitionKey); size > st.maxRecordSize {
		return errorf(Validation, "1 validation error detected: record of %d bytes failed to satisfy constraint: "+
			"data and partition key must have length less than or equal to %d", size, st.maxRecordSize)
	}
	return nil
}

type putRecordRequest struct {
	streamRef
	entry
	SequenceNumberForOrdering string
}

// placed is where a record went; in an answer to PutRecords, or why it went nowhere.
type placed struct {
	ShardId        string `json:",omitempty"`
	SequenceNumber string `json:",omitempty"`
	EncryptionType string `json:",omitempty"`
	ErrorCode      string `json:",omitempty"`
	ErrorMessage   string `json:",omitempty"`
}

func (r *putRecordRequest) about(s *Server) (stream, shard string) {
	return r.named(), s.shardOf(r.named(), &r.entry)
}

// shardOf is the ID of the shard that a record would go to; "" when there is none.
func (s *Server) shardOf(stream string, e *entry) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.find(stream, s.now())
	if err != nil {
		return ""
	}
	sh, err := st.place(e.PartitionKey, e.ExplicitHashKey)
	if err != nil {
		return ""
	}
	return sh.id
}

func (r *putRecordRequest) do(s *Server, now time.Time) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := r.serving(s, now)
	if err != nil {
		return nil, err
	}
	if err := st.checkSize(&r.entry); err != nil {
		return nil, err
	}
	sh, err := st.place(r.PartitionKey, r.ExplicitHashKey)
	if err != nil {
		return nil, err
	}
	return s.putOne(st, sh, &r.entry, now)
}

// putOne stores a record unless the shard's limit forbids it. Called with mu held.
func (s *Server) putOne(st *stream, sh *shard, e *entry, now time.Time) (*placed, *apiError) {
	if s.writeLimits && !sh.write.admit(now, len(e.Data)+len(e.PartitionKey)) {
		return nil, errorf(ProvisionedThroughputExceeded, "Rate exceeded for shard %s in stream %s under account %s.", sh.id, st.name, s.account)
	}
	r := st.put(sh, Record{PartitionKey: e.PartitionKey, ExplicitHashKey: e.ExplicitHashKey, Data: e.Data}, now)
	return &placed{ShardId: r.ShardID, SequenceNumber: r.SequenceNumber, EncryptionType: r.EncryptionType}, nil
}

type putRecordsRequest struct {
	streamRef
	Records []entry
}

func (r *putRecordsRequest) do(s *Server, now time.Time) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(r.Records); n < 1 || n > maxPutEntries {
		return nil, errorf(Validation, "1 validation error detected: Value of %d records at 'records' failed to satisfy constraint: "+
			"Member must have length between 1 and %d", n, maxPutEntries)
	}
	st, err := r.serving(s, now)
	if err != nil {
		return nil, err
	}
	// A request that breaks a rule stores nothing; only throughput is judged record by record.
	shards, total := make([]*shard, len(r.Records)), 0
	for i := range r.Records {
		e := &r.Records[i]
		if err := st.checkSize(e); err != nil {
			return nil, err
		}
		if shards[i], err = st.place(e.PartitionKey, e.ExplicitHashKey); err != nil {
			return nil, err
		}
		total += len(e.Data) + len(e.PartitionKey)
	}
	if total > maxPutBytes {
		return nil, errorf(InvalidArgument, "Records size exceeds 10 MB limit")
	}
	out := struct {
		FailedRecordCount int
		EncryptionType    string `json:",omitempty"`
		Records           []*placed
	}{Records: make([]*placed, len(r.Records))}
	if st.keyID != "" {
		out.EncryptionType = "KMS"
	}
	for i := range r.Records {
		p, err := s.putOne(st, shards[i], &r.Records[i], now)
		if err != nil {
			out.FailedRecordCount++
			p = &placed{ErrorCode: err.code, ErrorMessage: err.message}
		} else {
			p.EncryptionType = "" // told once for the request
		}
		out.Records[i] = p
	}
	return out, nil
}
