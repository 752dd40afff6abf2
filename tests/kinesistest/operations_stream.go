package kinesistest

import (
	"slices"
	"time"
)

const (
	defaultRetention     = 24 * time.Hour
	maxRetention         = 8760 * time.Hour
	defaultMaxRecordSize = 1 << 20
	onDemandShards       = 4
)

type streamMode struct{ StreamMode string }

type createStreamRequest struct {
	streamRef
	ShardCount          *int
	StreamModeDetails   *streamMode
	MaxRecordSizeInKiB  *int
	Tags                map[string]string
	WarmThroughputMiBps *int
}

func (r *createStreamRequest) do(s *Server, now time.Time) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := checkName("streamName", r.StreamName); err != nil {
		return nil, err
	}
	if err := checkRange("shardCount", r.ShardCount, 1, 100_000); err != nil {
		return nil, err
	}
	if err := checkRange("maxRecordSizeInKiB", r.MaxRecordSizeInKiB, 1024, 10240); err != nil {
		return nil, err
	}
	onDemand := r.StreamModeDetails != nil && r.StreamModeDetails.StreamMode == "ON_DEMAND"
	shards := onDemandShards
	switch {
	case onDemand && r.ShardCount != nil:
		return nil, errorf(InvalidArgument, "ShardCount must not be given for an on-demand stream.")
	case !onDemand && r.ShardCount == nil:
		return nil, errorf(InvalidArgument, "ShardCount must be given for a provisioned stream.")
	case !onDemand:
		shards = *r.ShardCount
	}
	if err := s.createStream(r.StreamName, shards, onDemand, now); err != nil {
		return nil, err
	}
	if r.MaxRecordSizeInKiB != nil {
		s.streams[r.StreamName].maxRecordSize = *r.MaxRecordSizeInKiB << 10
	}
	return nil, nil
}

// createStream is called with mu held.
func (s *Server) createStream(name string, shards int, onDemand bool, now time.Time) *apiError {
	if err := checkName("streamName", name); err != nil {
		return err
	}
	if err := checkRange("shardCount", &shards, 1, 100_000); err != nil {
		return err
	}
	if st, _ := s.find(name, now); st != nil {
		return errorf(ResourceInUse, "Stream %s under account %s already exists.", name, s.account)
	}
	if err := s.admitShards(shards); err != nil {
		return err
	}
	now = now.Truncate(time.Millisecond)
	st := &stream{
		name:          name,
		arn:           s.streamARN(name),
		created:       now,
		readyAt:       now.Add(s.stateDelay),
		onDemand:      onDemand,
		retention:     defaultRetention,
		maxRecordSize: defaultMaxRecordSize,
	}
	for _, keys := range evenRanges(shards) {
		st.addShard(now, keys)
	}
	s.streams[name] = st
	return nil
}

// admitShards tells whether the account may have that many more open shards. Called with mu held.
func (s *Server) admitShards(more int) *apiError {
	open := 0
	for _, st := range s.streams {
		open += len(st.open)
	}
	if s.shardLimit > 0 && open+more > s.shardLimit {
		return errorf(LimitExceeded, "This request would exceed the shard limit for the account %s in %s. "+
			"Current shard count for the account: %d. Limit: %d.", s.account, s.region, open, s.shardLimit)
	}
	return nil
}

type deleteStreamRequest struct {
	streamRef
	EnforceConsumerDeletion bool
}

func (r *deleteStreamRequest) do(s *Server, now time.Time) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := r.resolve(s, now)
	if err != nil {
		return nil, err
	}
	if len(st.registered(now)) > 0 && !r.EnforceConsumerDeletion {
		return nil, errorf(ResourceInUse, "Stream %s under account %s has %d consumers; they must be deregistered, or EnforceConsumerDeletion be set.",
			st.name, s.account, len(st.consumers))
	}
	if st.deletedAt.IsZero() {
		st.deletedAt = now.Add(s.stateDelay)
		st.dismiss(errorf(ResourceNotFound, "Stream %s under account %s not found.", st.name, s.account))
	}
	return nil, nil
}

type describeSummaryRequest struct{ streamRef }

// description is what both ways to describe a stream tell.
type description struct {
	StreamName              string
	StreamARN               string
	StreamStatus            string
	StreamModeDetails       streamMode
	RetentionPeriodHours    int
	StreamCreationTimestamp timestamp
	EnhancedMonitoring      []monitoring
	EncryptionType          string
	KeyId                   string `json:",omitempty"`
}

type monitoring struct{ ShardLevelMetrics []string }

func (st *stream) describe(now time.Time) description {
	d := description{
		StreamName:              st.name,
		StreamARN:               st.arn,
		StreamStatus:            st.status(now),
		StreamModeDetails:       streamMode{"PROVISIONED"},
		RetentionPeriodHours:    int(st.retention / time.Hour),
		StreamCreationTimestamp: timestamp{st.created},
		EnhancedMonitoring:      []monitoring{{ShardLevelMetrics: []string{}}},
		EncryptionType:          "NONE",
	}
	if st.onDemand {
		d.StreamModeDetails.StreamMode = "ON_DEMAND"
	}
	if st.keyID != "" {
		d.EncryptionType, d.KeyId = "KMS", st.keyID
	}
	return d
}

func (r *describeSummaryRequest) do(s *Server, now time.Time) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := r.resolve(s, now)
	if err != nil {
		return nil, err
	}
	type summary struct {
		description
		OpenShardCount     int
		ConsumerCount      int
		MaxRecordSizeInKiB int
	}
	out := summary{description: st.describe(now), MaxRecordSizeInKiB: st.maxRecordSize >> 10, ConsumerCount: len(st.registered(now))}
	if out.StreamStatus != "CREATING" {
		out.OpenShardCount = len(st.open)
	}
	return map[string]any{"StreamDescriptionSummary": out}, nil
}

type describeStreamRequest struct {
	streamRef
	Limit                 *int
	ExclusiveStartShardId string
}

func (r *describeStreamRequest) do(s *Server, now time.Time) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := checkRange("limit", r.Limit, 1, 10_000); err != nil {
		return nil, err
	}
	st, err := r.resolve(s, now)
	if err != nil {
		return nil, err
	}
	limit := 100
	if r.Limit != nil {
		limit = min(*r.Limit, limit)
	}
	type full struct {
		description
		Shards        []shardDescription
		HasMoreShards bool
	}
	out := full{description: st.describe(now), Shards: []shardDescription{}}
	if out.StreamStatus != "CREATING" {
		shards := after(st.listed(now), r.ExclusiveStartShardId)
		out.HasMoreShards = len(shards) > limit
		out.Shards = describeShards(shards[:min(limit, len(shards))])
	}
	return map[string]any{"StreamDescription": out}, nil
}

type listStreamsRequest struct {
	Limit                    *int
	ExclusiveStartStreamName string
	NextToken                string
}

func (r *listStreamsRequest) about(*Server) (stream, shard string) { return "", "" }

func (r *listStreamsRequest) do(s *Server, now time.Time) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := checkRange("limit", r.Limit, 1, 10_000); err != nil {
		return nil, err
	}
	start := r.ExclusiveStartStreamName
	if r.NextToken != "" {
		var err *apiError
		if start, err = s.readToken(r.NextToken, now); err != nil {
			return nil, err
		}
	}
	names := make([]string, 0, len(s.streams))
	for name := range s.streams {
		if st, _ := s.find(name, now); st != nil && name > start {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	limit := 100
	if r.Limit != nil {
		limit = *r.Limit
	}
	type summary struct {
		StreamName, StreamARN, StreamStatus string
		StreamModeDetails                   streamMode
		StreamCreationTimestamp             timestamp
	}
	out := struct {
		StreamNames     []string
		StreamSummaries []summary
		HasMoreStreams  bool
		NextToken       string `json:",omitempty"`
	}{StreamNames: names[:min(limit, len(names))], StreamSummaries: []summary{}, HasMoreStreams: len(names) > limit}
	for _, name := range out.StreamNames {
		d := s.streams[name].describe(now)
		out.StreamSummaries = append(out.StreamSummaries, summary{d.StreamName, d.StreamARN, d.StreamStatus, d.StreamModeDetails, d.StreamCreationTimestamp})
	}
	if out.HasMoreStreams {
		out.NextToken = s.writeToken(names[limit-1], now)
	}
	return out, nil
}

type startEncryptionRequest struct {
	streamRef
	EncryptionType, KeyId string
}

func (r *startEncryptionRequest) do(s *Server, now time.Time) (any, *apiError) {
	if r.EncryptionType != "KMS" || r.KeyId == "" {
		return nil, errorf(InvalidArgument, "EncryptionType must be KMS and KeyId must be given.")
	}
	return s.update(&r.streamRef, now, func(st *stream) *apiError {
		st.keyID = r.KeyId
		return nil
	})
}

type stopEncryptionRequest struct {
	streamRef
	EncryptionType, KeyId string
}

func (r *stopEncryptionRequest) do(s *Server, now time.Time) (any, *apiError) {
	return s.update(&r.streamRef, now, func(st *stream) *apiError {
		st.keyID = ""
		return nil
	})
}

type increaseRetentionRequest struct {
	streamRef
	RetentionPeriodHours int
}

func (r *increaseRetentionRequest) do(s *Server, now time.Time) (any, *apiError) {
	return s.update(&r.streamRef, now, func(st *stream) *apiError {
		d := time.Duration(r.RetentionPeriodHours) * time.Hour
		if d < st.retention || d > maxRetention {
			return errorf(InvalidArgument, "Requested retention period (%d hours) must not be shorter than the present one (%d hours) nor longer than 8760 hours.",
				r.RetentionPeriodHours, int(st.retention/time.Hour))
		}
		st.retention = d
		return nil
	})
}

type decreaseRetentionRequest struct {
	streamRef
	RetentionPeriodHours int
}

func (r *decreaseRetentionRequest) do(s *Server, now time.Time) (any, *apiError) {
	return s.update(&r.streamRef, now, func(st *stream) *apiError {
		d := time.Duration(r.RetentionPeriodHours) * time.Hour
		if d > st.retention || d < defaultRetention {
			return errorf(InvalidArgument, "Requested retention period (%d hours) must not be longer than the present one (%d hours) nor shorter than 24 hours.",
				r.RetentionPeriodHours, int(st.retention/time.Hour))
		}
		st.retention = d
		return nil
	})
}

type updateMaxRecordSizeRequest struct {
	streamRef
	MaxRecordSizeInKiB int
}

func (r *updateMaxRecordSizeRequest) do(s *Server, now time.Time) (any, *apiError) {
	if err := checkRange("maxRecordSizeInKiB", &r.MaxRecordSizeInKiB, 1024, 10240); err != nil {
		return nil, err
	}
	return s.update(&r.streamRef, now, func(st *stream) *apiError {
		st.maxRecordSize = r.MaxRecordSizeInKiB << 10
		return nil
	})
}

// update changes an ACTIVE stream, which is UPDATING afterwards for the state delay.
func (s *Server) update(ref *streamRef, now time.Time, change func(*stream) *apiError) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := ref.resolve(s, now)
	if err != nil {
		return nil, err
	}
	if status := st.status(now); status != "ACTIVE" {
		return nil, errorf(ResourceInUse, "Stream %s under account %s not ACTIVE, instead in state %s", st.name, s.account, status)
	}
	for _, sh := range st.shards {
		sh.trim(st, now) // by the retention period that holds until now: what is trimmed does not come back
	}
	if err := change(st); err != nil {
		return nil, err
	}
	st.updatedAt = now.Add(s.stateDelay)
	return nil, nil
}
