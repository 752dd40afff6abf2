package lease

import (
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

// update is one conditional UpdateItem. Names and values enter it only when they are used: DynamoDB refuses a request
// with an unused one.
type update struct {
	key                 string
	sets, removes, adds []string
	conditions          []string
	names               map[string]string
	values              map[string]types.AttributeValue
}

func newUpdate(key string) *update {
	return &update{key: key, names: map[string]string{}, values: map[string]types.AttributeValue{}}
}

// name gives the placeholder of an attribute, so that no name can ever collide with DynamoDB's reserved words.
func (u *update) name(attr string) string {
	u.names["#"+attr] = attr
	return "#" + attr
}

func (u *update) value(placeholder string, v types.AttributeValue) string {
	u.values[placeholder] = v
	return placeholder
}

// set sets an attribute; a second call for the same attribute replaces the value, since DynamoDB refuses two.
func (u *update) set(attr string, v types.AttributeValue) {
	if _, again := u.values[":new_"+attr]; again {
		u.values[":new_"+attr] = v
		return
	}
	u.sets = append(u.sets, u.name(attr)+" = "+u.value(":new_"+attr, v))
}

func (u *update) setIfAbsent(attr string, v types.AttributeValue) {
	n := u.name(attr)
	u.sets = append(u.sets, n+" = if_not_exists("+n+", "+u.value(":new_"+attr, v)+")")
}

func (u *update) add(attr string, n int64) {
	u.adds = append(u.adds, u.name(attr)+" "+u.value(":add_"+attr, number(n)))
}

func (u *update) remove(attrs ...string) {
	for _, a := range attrs {
		u.removes = append(u.removes, u.name(a))
	}
}

func (u *update) ifEqual(attr string, v types.AttributeValue) {
	u.conditions = append(u.conditions, u.name(attr)+" = "+u.value(":is_"+attr, v))
}

// ifAsSeen requires a string attribute to be as it was read, where "" means absent.
func (u *update) ifAsSeen(attr, seen string) {
	if seen == "" {
		u.conditions = append(u.conditions, "attribute_not_exists("+u.name(attr)+")")
		return
	}
	u.ifEqual(attr, text(seen))
}

func (u *update) ifExists(attr string) {
	u.conditions = append(u.conditions, "attribute_exists("+u.name(attr)+")")
}

// input is the request. ALL_NEW costs nothing and is what a run starts from; ALL_OLD on failure tells why.
func (u *update) input(table string) *dynamodb.UpdateItemInput {
	var expression []string
	for _, part := range []struct {
		verb  string
		parts []string
	}{{"SET", u.sets}, {"REMOVE", u.removes}, {"ADD", u.adds}} {
		if len(part.parts) > 0 {
			expression = append(expression, part.verb+" "+strings.Join(part.parts, ", "))
		}
	}
	in := &dynamodb.UpdateItemInput{
		TableName:                           aws.String(table),
		Key:                                 map[string]types.AttributeValue{attrKey: text(u.key)},
		UpdateExpression:                    aws.String(strings.Join(expression, " ")),
		ConditionExpression:                 aws.String(strings.Join(u.conditions, " AND ")),
		ExpressionAttributeNames:            u.names,
		ReturnValues:                        types.ReturnValueAllNew,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
	if len(u.values) > 0 {
		in.ExpressionAttributeValues = u.values
	}
	return in
}

// ownership is what an owner's write is conditional on: the run, and the counter that the write moves on.
type ownership struct {
	key, worker, acquisition string
	counter                  int64
	// next is the worker that a leader of KCL 3.x wants to have the lease (r8.4): it stands in leaseOwner already, and the
	// worker in checkpointOwner, which still makes it the owner. "" = no such hand-over.
	next string
}

// of returns what the owner's next write is conditional on, given the item as its last answer showed it.
func (o ownership) of(l Lease) ownership {
	o.counter, o.next = l.Counter, ""
	if l.CheckpointOwner == o.worker {
		o.next = l.Owner
	}
	return o
}

// bracket is what an owner's write stores beside the counter: a checkpoint with all that goes with one, or only the
// beginning of an epoch of de-duplication, or nothing.
type bracket struct {
	position checkpoint.Position // zero: the checkpoint is left alone, and with it everything that goes with one
	marks    *numberMarks
}

// ownerUpdate is the shape that KEEP and RELEASE share (r2).
func ownerUpdate(o ownership, b bracket) *update {
	position := b.position
	u := newUpdate(o.key)
	u.ifEqual(attrCounter, number(o.counter))
	if o.next == "" {
		u.ifEqual(attrOwner, text(o.worker))
	} else {
		u.ifEqual(attrCheckpointOwner, text(o.worker))
		u.ifEqual(attrOwner, text(o.next))
	}
	u.ifEqual(attrAcquisition, text(o.acquisition))
	u.set(attrCounter, number(o.counter+1))
	if !position.IsZero() {
		u.set(attrCheckpoint, text(position.Sequence))
		u.set(attrSub, number(position.Sub))
		u.set(attrSwitches, number(0))
		u.remove(attrPending, attrPendingSub, attrPendingState)
	}
	if b.marks != nil {
		b.marks.write(u)
	}
	return u
}

// keepUpdate renews a lease and stores what is to be stored with it, if anything. With refuse it takes away whoever asks
// for the lease (r4.2), who sees so that it will not come.
func keepUpdate(o ownership, rest bracket, refuse bool) *update {
	u := ownerUpdate(o, rest)
	if refuse {
		u.remove(attrAsk, attrAskAt)
	}
	return u
}

// releaseUpdate stores what is unwritten and leaves the lease to whoever wants it (r4.7). The acquisition stays behind,
// by which a lost answer is recognised. In a hand-over of KCL 3.x it is the last write of that (r8.4): the next owner
// stands there already and begins when checkpointOwner is gone.
func releaseUpdate(o ownership, rest bracket) *update {
	u := ownerUpdate(o, rest)
	if o.next == "" {
		u.remove(attrOwner)
	} else {
		u.remove(attrCheckpointOwner)
	}
	u.remove(attrAsk, attrAskAt)
	return u
}

// giveUpdate stores what is unwritten and makes the asker the owner, in one write (r4.4): before it the lease is ours,
// after it the asker's, and between the two nobody can come. The acquisition is one made for the asker, by which both
// recognise the write when its answer is lost.
func giveUpdate(o ownership, rest bracket, asker, acquisition string) *update {
	u := ownerUpdate(o, rest)
	u.ifEqual(attrAsk, text(asker))
	u.set(attrOwner, text(asker))
	u.set(attrAcquisition, text(acquisition))
	u.set(attrSwitches, number(1))
	u.remove(attrAsk, attrAskAt)
	return u
}

// adoptUpdate is the first renewal of a lease that was given to us (r4.5). It says how long we believe in it: by the
// giver's failover time, if that is shorter, others would take the lease before our fence closes.
func adoptUpdate(o ownership, failover time.Duration) *update {
	u := ownerUpdate(o, bracket{})
	u.set(attrFailover, number(failover.Milliseconds()))
	return u
}

// askCounters is by how many renewals an ask is out of date: its asker has given up by then, so that another may ask.
const askCounters = 6

// askUpdate asks the owner of a lease, who must be one of ours, to hand it over (r4.1). The counter is left alone, and
// serves as the clock of the ask.
func askUpdate(seen Lease, worker string) *update {
	u := newUpdate(seen.Key)
	u.ifEqual(attrCounter, number(seen.Counter))
	u.ifEqual(attrOwner, text(seen.Owner))
	u.ifEqual(attrAcquisition, text(seen.Acquisition))
	u.conditions = append(u.conditions,
		"(attribute_not_exists("+u.name(attrAsk)+") OR "+u.name(attrAskAt)+" < "+u.value(":stale_"+attrAskAt, number(seen.Counter-askCounters))+")")
	u.set(attrAsk, text(worker))
	u.set(attrAskAt, number(seen.Counter))
	return u
}

// withdrawUpdate takes an ask back, unless the lease has been given meanwhile (r4.5).
func withdrawUpdate(asked Lease, worker string) *update {
	u := newUpdate(asked.Key)
	u.ifEqual(attrAsk, text(worker))
	u.ifEqual(attrOwner, text(asked.Owner))
	u.remove(attrAsk, attrAskAt)
	return u
}

// takeUpdate makes worker the owner of a lease that looks exactly as it was seen (r3.5). A zero anchor leaves kp_start
// alone.
func takeUpdate(seen Lease, worker, acquisition, stream string, failover time.Duration, anchor time.Time) *update {
	u := newUpdate(seen.Key)
	u.ifEqual(attrCounter, number(seen.Counter))
	u.ifAsSeen(attrOwner, seen.Owner)
	u.ifAsSeen(attrCheckpointOwner, seen.CheckpointOwner)
	// The counter of a lease that was deleted and made anew may be the same again; its run is another.
	u.ifAsSeen(attrAcquisition, seen.Acquisition)
	u.conditions = append(u.conditions,
		"(attribute_not_exists("+u.name(attrStream)+") OR "+u.name(attrStream)+" = :new_"+attrStream+")")
	u.set(attrOwner, text(worker))
	u.set(attrCounter, number(seen.Counter+1))
	u.set(attrAcquisition, text(acquisition))
	u.set(attrFailover, number(failover.Milliseconds()))
	u.set(attrStream, text(stream))
	if !anchor.IsZero() {
		u.setIfAbsent(attrStart, number(anchor.UnixMilli()))
	}
	u.remove(attrCheckpointOwner, attrAsk, attrAskAt)
	// As KCL counts: the first owner is no switch.
	if seen.Owner != "" && seen.Owner != worker {
		u.add(attrSwitches, 1)
	}
	return u
}
