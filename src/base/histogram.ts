// Counts of values by size, precise to 6 %: sixteen steps a power of two.
//
//   value     0 1 2 ... 15 │ 16 17 ... 31 │ 32 34 ... 62 │ 64 68 ...
//   bucket    0 1 2 ... 15 │ 16 17 ... 31 │ 32 33 ... 47 │ 48 49 ...
//
// The counts are a Float64Array: it may lie in shared memory, and adding to it allocates nothing.

/** Buckets for every value below 2^31. */
export const BUCKETS: number = 28 * 16;

/** The bucket of an integer from 0 to 2^31 - 1. */
export function bucketOf(value: number): number {
  if (value < 16) return value;
  const exponent = 31 - Math.clz32(value);
  return ((exponent - 3) << 4) + ((value >>> (exponent - 4)) & 15);
}

/** The smallest value that does not belong to the bucket or a lower one. */
export function bucketUntil(bucket: number): number {
  if (bucket < 16) return bucket + 1;
  const shift = (bucket >>> 4) - 1;
  return (17 + (bucket & 15)) * 2 ** shift;
}

/** The value that a share of all counted values (0 to 1) does not exceed, 0 when nothing was counted. */
export function quantile(counts: Float64Array, share: number): number {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total === 0) return 0;
  let below = 0;
  for (const [bucket, count] of counts.entries()) {
    below += count;
    if (below >= share * total) return bucketUntil(bucket) - 1;
  }
  return bucketUntil(counts.length - 1) - 1;
}
