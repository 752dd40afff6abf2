package kinesistest

import (
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"
)

const (
	maxReadRecords = 10_000
	maxReadBytes   = 10 << 20 // of data and partition keys in one answer
)

type getIteratorRequest struct {
	streamRef
	ShardId string
	startingPosition
}

func (r *getIteratorRequest) about(*Server) (stream, shard string) { return r.named(), r.ShardId }

// startingPosition is where reading starts, for GetShardIterator; a subscription has the same with other names.
type startingPosition struct {
	ShardIteratorType      string
	StartingSequenceNumber string
	Timestamp              *timestamp
}

// resolve is the index of the first record that is to be read.
func (p *startingPosition) resolve(operation string, sh *shard, now time.Time) (uint64, *apiError) {
	switch p.ShardIteratorType {
	case "TRIM_HORIZON":
		return 0, nil
	case "LATEST":
		return sh.last.index + 1, nil
	case "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER":
		if p.StartingSequenceNumber == "" {
			return 0, errorf(InvalidArgument, "StartingSequenceNumber must be given for ShardIteratorType %s.", p.ShardIteratorType)
		}
		q, err := parseSequence(p.StartingSequenceNumber)
		if err != nil || q.shard != sh.index || q.created != sh.stamp {
			return 0, errorf(InvalidArgument, "StartingSequenceNumber %s used in %s on shard %s is invalid because it did not come from this stream.",
				p.StartingSequenceNumber, operation, sh.id)
		}
		if p.ShardIteratorType == "AFTER_SEQUENCE_NUMBER" {
			return q.index + 1, nil
		}
		return q.index, nil
	case "AT_TIMESTAMP":
		if p.Timestamp == nil {
			return 0, errorf(InvalidArgument, "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP.")
		}
		if p.Timestamp.After(now) {
			return 0, errorf(InvalidArgument, "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: %d, currentTimestampInMillis: %d",
				p.Timestamp.UnixMilli(), now.UnixMilli())
		}
		if sh.replay != nil && !p.Timestamp.After(sh.created) {
			return 0, nil
		}
		i := sort.Search(len(sh.records), func(i int) bool { return !sh.records[i].Arrival.Before(p.Timestamp.Time) })
		if i == len(sh.records) {
			return sh.last.index + 1, nil
		}
		return sh.records[i].index, nil
	}
	return 0, errorf(Validation, "1 validation error detected: Value '%s' at 'shardIteratorType' failed to satisfy constraint: "+
		"Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]", p.ShardIteratorType)
}

func (r *getIteratorRequest) do(s *Server, now time.Time) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := r.serving(s, now)
	if err != nil {
		return nil, err
	}
	sh := st.find(r.ShardId, now)
	if sh == nil {
		return nil, errorf(ResourceNotFound, "Shard %s in stream %s under account %s does not exist", r.ShardId, st.name, s.account)
	}
	sh.trim(st, now)
	position, err := r.startingPosition.resolve("GetShardIterator", sh, now)
	if err != nil {
		return nil, err
	}
	return map[string]string{"ShardIterator": s.iteratorAt(st, sh, position, now)}, nil
}

func (s *Server) iteratorAt(st *stream, sh *shard, position uint64, now time.Time) string {
	return iterator{
		stream:   st.name,
		created:  st.created.UnixMilli(),
		shard:    sh.index,
		position: position,
		issued:   now.UnixMilli(),
		epoch:    s.epoch,
	}.encode(s.key)
}

type getRecordsRequest struct {
	streamRef
	ShardIterator string
	Limit         *int
}

func (r *getRecordsRequest) about(s *Server) (stream, shard string) {
	it, err := decodeIterator(s.key, r.ShardIterator)
	if err != nil {
		return r.named(), ""
	}
	return it.stream, shardID(it.shard)
}

func (r *getRecordsRequest) do(s *Server, now time.Time) (any, *apiError) {
	if err := checkRange("limit", r.Limit, 1, maxReadRecords); err != nil {
		return nil, err
	}
	it, bad := decodeIterator(s.key, r.ShardIterator)
	if bad != nil {
		return nil, errorf(InvalidArgument, "Invalid ShardIterator.")
	}
	limit := maxReadRecords
	if r.Limit != nil {
		limit = *r.Limit
	}
	rd, next, children, err := s.getRecords(it, &r.streamRef, limit, now)
	if err != nil {
		return nil, err
	}
	return encodeReading(&rd, next, children), nil
}

// getRecords does what needs the lock; encoding does not.
func (s *Server) getRecords(it iterator, ref *streamRef, limit int, now time.Time) (rd reading, next string, children []childShard, err *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.serving(it.stream, now)
	if err != nil {
		return rd, "", nil, err
	}
	if st.created.UnixMilli() != it.created || ref.StreamARN != "" && ref.StreamARN != st.arn {
		return rd, "", nil, errorf(InvalidArgument, "Invalid ShardIterator.")
	}
	if age := now.Sub(time.UnixMilli(it.issued)); age > iteratorLife || it.epoch != s.epoch {
		return rd, "", nil, errorf(ExpiredIterator, "Iterator expired. The iterator was created at time %s while right now it is %s which is further in the future than the tolerated delay of %d milliseconds.",
			time.UnixMilli(it.issued).UTC().Format(time.RFC1123), now.UTC().Format(time.RFC1123), iteratorLife.Milliseconds())
	}
	sh := st.find(shardID(it.shard), now)
	if sh == nil {
		return rd, "", nil, errorf(ResourceNotFound, "Shard %s in stream %s under account %s does not exist", shardID(it.shard), st.name, s.account)
	}
	if s.readLimits && !sh.read.admit(now) {
		return rd, "", nil, errorf(ProvisionedThroughputExceeded, "Rate exceeded for shard %s in stream %s under account %s.", sh.id, st.name, s.account)
	}
	sh.trim(st, now)
	rd = sh.readFrom(it.position, limit, maxReadBytes, now, s.visibility)
	if s.lag != nil {
		rd.behind = s.lag(st.name, sh.id, rd.behind)
	}
	if s.readLimits {
		sh.read.charge(rd.size)
	}
	if rd.ended {
		return rd, "", sh.childShards(), nil
	}
	return rd, s.iteratorAt(st, sh, rd.next, now), nil, nil
}

// buffers are answers' bodies, as *encoded. Answers of megabytes would else be most of what the server allocates.
var buffers = sync.Pool{New: func() any { return new(encoded) }}

// encodeReading writes the answer to GetRecords: NextShardIterator while there may be more, ChildShards at the shard's end.
func encodeReading(rd *reading, next string, children []childShard) *encoded {
	out := buffers.Get().(*encoded)
	b := append(slices.Grow((*out)[:0], 256+len(next)+rd.jsonSize()), `{"Records":`...)
	b = rd.appendRecords(b)
	b = append(b, `,"MillisBehindLatest":`...)
	b = strconv.AppendInt(b, rd.behind.Milliseconds(), 10)
	if next != "" {
		b = append(b, `,"NextShardIterator":"`...)
		b = append(b, next...)
		b = append(b, '"')
	} else {
		b = append(b, `,"NextShardIterator":null,"ChildShards":`...)
		b = append(b, encode(children)...)
	}
	*out = append(b, '}')
	return out
}

// appendRecords writes what was read as a JSON list.
func (rd *reading) appendRecords(b []byte) []byte {
	b = append(b, '[')
	for i := range rd.records {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendRecord(b, &rd.records[i])
	}
	return append(rd.replayed.appendTo(b), ']')
}

// jsonSize is about how long that list is.
func (rd *reading) jsonSize() int {
	size := rd.encodedSize()
	for i := range rd.records {
		size += rd.records[i].size()*4/3 + 192
	}
	return size
}
