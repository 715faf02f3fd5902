import { readFileSync } from 'fs';

export default async ([file]) => readFileSync(new URL(file, import.meta.url), 'utf8').length;
