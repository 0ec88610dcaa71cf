-- A database of the zoo at migration 0001, as NeuronMap's first release with a zoo left it: two versions, an alias, a deprecation.
-- Written once from such a database and never changed; the triggers fill the index of texts.
PRAGMA foreign_keys = OFF;
BEGIN;
CREATE TABLE zoo_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT zoo_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE zoo_users (
	id INTEGER NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	email VARCHAR(320), 
	password_hash TEXT, 
	subject TEXT, 
	is_admin BOOLEAN DEFAULT '0' NOT NULL, 
	disabled BOOLEAN DEFAULT '0' NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_zoo_users PRIMARY KEY (id), 
	CONSTRAINT uq_zoo_users_name UNIQUE (name), 
	CONSTRAINT uq_zoo_users_subject UNIQUE (subject)
);
CREATE TABLE zoo_namespaces (
	id INTEGER NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	title VARCHAR(200) DEFAULT '' NOT NULL, 
	quota_bytes BIGINT, 
	created_at DOUBLE NOT NULL, 
	deleted_at DOUBLE, 
	CONSTRAINT pk_zoo_namespaces PRIMARY KEY (id), 
	CONSTRAINT uq_zoo_namespaces_name UNIQUE (name)
);
CREATE TABLE zoo_members (
	namespace_id INTEGER NOT NULL, 
	user_id INTEGER NOT NULL, 
	role VARCHAR(20) NOT NULL, 
	CONSTRAINT pk_zoo_members PRIMARY KEY (namespace_id, user_id), 
	CONSTRAINT fk_zoo_members_namespace_id FOREIGN KEY(namespace_id) REFERENCES zoo_namespaces (id), 
	CONSTRAINT fk_zoo_members_user_id FOREIGN KEY(user_id) REFERENCES zoo_users (id)
);
CREATE TABLE zoo_tokens (
	id INTEGER NOT NULL, 
	user_id INTEGER NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	title VARCHAR(200) DEFAULT '' NOT NULL, 
	secret_sha256 VARCHAR(64) NOT NULL, 
	shown VARCHAR(20) NOT NULL, 
	scopes JSON NOT NULL, 
	namespace_id INTEGER, 
	created_at DOUBLE NOT NULL, 
	expires_at DOUBLE, 
	used_at DOUBLE, 
	revoked_at DOUBLE, 
	CONSTRAINT pk_zoo_tokens PRIMARY KEY (id), 
	CONSTRAINT fk_zoo_tokens_namespace_id FOREIGN KEY(namespace_id) REFERENCES zoo_namespaces (id), 
	CONSTRAINT fk_zoo_tokens_user_id FOREIGN KEY(user_id) REFERENCES zoo_users (id), 
	CONSTRAINT uq_zoo_tokens_secret_sha256 UNIQUE (secret_sha256)
);
CREATE TABLE zoo_artefacts (
	id INTEGER NOT NULL, 
	namespace_id INTEGER NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	kind VARCHAR(42) NOT NULL, 
	private BOOLEAN DEFAULT '0' NOT NULL, 
	stars INTEGER DEFAULT '0' NOT NULL, 
	created_at DOUBLE NOT NULL, 
	updated_at DOUBLE NOT NULL, 
	deleted_at DOUBLE, 
	CONSTRAINT pk_zoo_artefacts PRIMARY KEY (id), 
	CONSTRAINT fk_zoo_artefacts_namespace_id FOREIGN KEY(namespace_id) REFERENCES zoo_namespaces (id), 
	CONSTRAINT uq_zoo_artefacts_namespace_id_name UNIQUE (namespace_id, name)
);
CREATE TABLE zoo_versions (
	id INTEGER NOT NULL, 
	artefact_id INTEGER NOT NULL, 
	label VARCHAR(64) NOT NULL, 
	sort_key VARCHAR(200) NOT NULL, 
	digest VARCHAR(71) NOT NULL, 
	manifest BLOB NOT NULL, 
	kind VARCHAR(42) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	reason TEXT DEFAULT '' NOT NULL, 
	successor_id INTEGER, 
	size_bytes BIGINT NOT NULL, 
	downloads BIGINT DEFAULT '0' NOT NULL, 
	publisher_id INTEGER, 
	created_at DOUBLE NOT NULL, 
	published_at DOUBLE, 
	changed_at DOUBLE NOT NULL, 
	CONSTRAINT pk_zoo_versions PRIMARY KEY (id), 
	CONSTRAINT ck_zoo_versions_state CHECK (state IN ('draft', 'published', 'deprecated', 'yanked', 'deleted')), 
	CONSTRAINT fk_zoo_versions_artefact_id FOREIGN KEY(artefact_id) REFERENCES zoo_artefacts (id), 
	CONSTRAINT fk_zoo_versions_publisher_id FOREIGN KEY(publisher_id) REFERENCES zoo_users (id), 
	CONSTRAINT fk_zoo_versions_successor_id FOREIGN KEY(successor_id) REFERENCES zoo_versions (id), 
	CONSTRAINT uq_zoo_versions_artefact_id_label UNIQUE (artefact_id, label)
);
CREATE TABLE zoo_files (
	version_id INTEGER NOT NULL, 
	path VARCHAR(512) NOT NULL, 
	digest VARCHAR(71) NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	media_type VARCHAR(100) NOT NULL, 
	CONSTRAINT pk_zoo_files PRIMARY KEY (version_id, path), 
	CONSTRAINT fk_zoo_files_version_id FOREIGN KEY(version_id) REFERENCES zoo_versions (id)
);
CREATE TABLE zoo_edges (
	version_id INTEGER NOT NULL, 
	parent_id INTEGER NOT NULL, 
	role VARCHAR(42) NOT NULL, 
	CONSTRAINT pk_zoo_edges PRIMARY KEY (version_id, parent_id, role), 
	CONSTRAINT fk_zoo_edges_parent_id FOREIGN KEY(parent_id) REFERENCES zoo_versions (id), 
	CONSTRAINT fk_zoo_edges_version_id FOREIGN KEY(version_id) REFERENCES zoo_versions (id)
);
CREATE TABLE zoo_aliases (
	artefact_id INTEGER NOT NULL, 
	alias VARCHAR(64) NOT NULL, 
	version_id INTEGER NOT NULL, 
	changed_at DOUBLE NOT NULL, 
	CONSTRAINT pk_zoo_aliases PRIMARY KEY (artefact_id, alias), 
	CONSTRAINT fk_zoo_aliases_artefact_id FOREIGN KEY(artefact_id) REFERENCES zoo_artefacts (id), 
	CONSTRAINT fk_zoo_aliases_version_id FOREIGN KEY(version_id) REFERENCES zoo_versions (id)
);
CREATE TABLE zoo_alias_log (
	id INTEGER NOT NULL, 
	artefact_id INTEGER NOT NULL, 
	alias VARCHAR(64) NOT NULL, 
	from_id INTEGER, 
	to_id INTEGER, 
	user_id INTEGER, 
	at DOUBLE NOT NULL, 
	reason TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_zoo_alias_log PRIMARY KEY (id), 
	CONSTRAINT fk_zoo_alias_log_artefact_id FOREIGN KEY(artefact_id) REFERENCES zoo_artefacts (id), 
	CONSTRAINT fk_zoo_alias_log_from_id FOREIGN KEY(from_id) REFERENCES zoo_versions (id), 
	CONSTRAINT fk_zoo_alias_log_to_id FOREIGN KEY(to_id) REFERENCES zoo_versions (id), 
	CONSTRAINT fk_zoo_alias_log_user_id FOREIGN KEY(user_id) REFERENCES zoo_users (id)
);
CREATE TABLE zoo_blobs (
	digest VARCHAR(71) NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	verified_at DOUBLE NOT NULL, 
	sound BOOLEAN DEFAULT '1' NOT NULL, 
	CONSTRAINT pk_zoo_blobs PRIMARY KEY (digest)
);
CREATE TABLE zoo_publications (
	id INTEGER NOT NULL, 
	"key" VARCHAR(32) NOT NULL, 
	namespace_id INTEGER NOT NULL, 
	user_id INTEGER, 
	reserved_bytes BIGINT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	CONSTRAINT pk_zoo_publications PRIMARY KEY (id), 
	CONSTRAINT fk_zoo_publications_namespace_id FOREIGN KEY(namespace_id) REFERENCES zoo_namespaces (id), 
	CONSTRAINT fk_zoo_publications_user_id FOREIGN KEY(user_id) REFERENCES zoo_users (id), 
	CONSTRAINT uq_zoo_publications_key UNIQUE ("key")
);
CREATE TABLE zoo_uploads (
	id INTEGER NOT NULL, 
	"key" VARCHAR(32) NOT NULL, 
	publication_id INTEGER NOT NULL, 
	digest VARCHAR(71) NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	received_bytes BIGINT DEFAULT '0' NOT NULL, 
	state JSON, 
	done BOOLEAN DEFAULT '0' NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_zoo_uploads PRIMARY KEY (id), 
	CONSTRAINT fk_zoo_uploads_publication_id FOREIGN KEY(publication_id) REFERENCES zoo_publications (id) ON DELETE CASCADE, 
	CONSTRAINT uq_zoo_uploads_key UNIQUE ("key"), 
	CONSTRAINT uq_zoo_uploads_publication_id_digest UNIQUE (publication_id, digest)
);
CREATE TABLE zoo_search_documents (
	version_id INTEGER NOT NULL, 
	findable BOOLEAN NOT NULL, 
	newest BOOLEAN NOT NULL, 
	namespace VARCHAR(64) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	kind VARCHAR(42) NOT NULL, 
	title TEXT NOT NULL, 
	model VARCHAR(200), 
	model_folded VARCHAR(200), 
	hook VARCHAR(300), 
	layer INTEGER, 
	component VARCHAR(60), 
	architecture VARCHAR(64), 
	d_in INTEGER, 
	width BIGINT, 
	l0 DOUBLE, 
	licence VARCHAR(200) NOT NULL, 
	authors JSON NOT NULL, 
	authors_folded TEXT NOT NULL, 
	tokenizer_digest VARCHAR(71), 
	model_digest VARCHAR(71), 
	fits_models TEXT NOT NULL, 
	fits_layers TEXT NOT NULL, 
	published_at DOUBLE NOT NULL, 
	summary TEXT NOT NULL, 
	body TEXT NOT NULL, 
	CONSTRAINT pk_zoo_search_documents PRIMARY KEY (version_id), 
	CONSTRAINT fk_zoo_search_documents_version_id FOREIGN KEY(version_id) REFERENCES zoo_versions (id) ON DELETE CASCADE
);
CREATE TABLE zoo_tags (
	version_id INTEGER NOT NULL, 
	tag VARCHAR(50) NOT NULL, 
	CONSTRAINT pk_zoo_tags PRIMARY KEY (version_id, tag), 
	CONSTRAINT fk_zoo_tags_version_id FOREIGN KEY(version_id) REFERENCES zoo_versions (id) ON DELETE CASCADE
);
CREATE TABLE zoo_figures (
	version_id INTEGER NOT NULL, 
	name VARCHAR(120) NOT NULL, 
	value DOUBLE NOT NULL, 
	CONSTRAINT pk_zoo_figures PRIMARY KEY (version_id, name), 
	CONSTRAINT fk_zoo_figures_version_id FOREIGN KEY(version_id) REFERENCES zoo_versions (id) ON DELETE CASCADE
);
CREATE VIRTUAL TABLE zoo_search_text USING fts5(
        title, body, namespace, name,
        content='zoo_search_documents', content_rowid='version_id', tokenize='unicode61 remove_diacritics 2', prefix='2 3'
    );
CREATE TABLE zoo_stars (
	artefact_id INTEGER NOT NULL, 
	user_id INTEGER NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_zoo_stars PRIMARY KEY (artefact_id, user_id), 
	CONSTRAINT fk_zoo_stars_artefact_id FOREIGN KEY(artefact_id) REFERENCES zoo_artefacts (id), 
	CONSTRAINT fk_zoo_stars_user_id FOREIGN KEY(user_id) REFERENCES zoo_users (id)
);
CREATE TABLE zoo_comments (
	id INTEGER NOT NULL, 
	artefact_id INTEGER NOT NULL, 
	version_id INTEGER, 
	user_id INTEGER, 
	text TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	deleted_at DOUBLE, 
	CONSTRAINT pk_zoo_comments PRIMARY KEY (id), 
	CONSTRAINT fk_zoo_comments_artefact_id FOREIGN KEY(artefact_id) REFERENCES zoo_artefacts (id), 
	CONSTRAINT fk_zoo_comments_user_id FOREIGN KEY(user_id) REFERENCES zoo_users (id), 
	CONSTRAINT fk_zoo_comments_version_id FOREIGN KEY(version_id) REFERENCES zoo_versions (id)
);
CREATE TABLE zoo_collections (
	id INTEGER NOT NULL, 
	namespace_id INTEGER NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	title VARCHAR(200) DEFAULT '' NOT NULL, 
	description TEXT DEFAULT '' NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_zoo_collections PRIMARY KEY (id), 
	CONSTRAINT fk_zoo_collections_namespace_id FOREIGN KEY(namespace_id) REFERENCES zoo_namespaces (id), 
	CONSTRAINT uq_zoo_collections_namespace_id_name UNIQUE (namespace_id, name)
);
CREATE TABLE zoo_collection_items (
	collection_id INTEGER NOT NULL, 
	artefact_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	note TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_zoo_collection_items PRIMARY KEY (collection_id, artefact_id), 
	CONSTRAINT fk_zoo_collection_items_artefact_id FOREIGN KEY(artefact_id) REFERENCES zoo_artefacts (id), 
	CONSTRAINT fk_zoo_collection_items_collection_id FOREIGN KEY(collection_id) REFERENCES zoo_collections (id) ON DELETE CASCADE
);
CREATE TABLE zoo_audit (
	id INTEGER NOT NULL, 
	at DOUBLE NOT NULL, 
	user_id INTEGER, 
	action VARCHAR(60) NOT NULL, 
	target VARCHAR(300) NOT NULL, 
	details JSON, 
	CONSTRAINT pk_zoo_audit PRIMARY KEY (id), 
	CONSTRAINT fk_zoo_audit_user_id FOREIGN KEY(user_id) REFERENCES zoo_users (id)
);
CREATE TABLE zoo_leases (
	name VARCHAR(40) NOT NULL, 
	holder VARCHAR(64) NOT NULL, 
	until DOUBLE NOT NULL, 
	CONSTRAINT pk_zoo_leases PRIMARY KEY (name)
);
CREATE INDEX ix_zoo_members_user_id ON zoo_members (user_id);
CREATE INDEX ix_zoo_tokens_user_id ON zoo_tokens (user_id);
CREATE INDEX ix_zoo_versions_digest ON zoo_versions (digest);
CREATE INDEX ix_zoo_files_digest ON zoo_files (digest);
CREATE INDEX ix_zoo_edges_parent_id ON zoo_edges (parent_id);
CREATE INDEX ix_zoo_aliases_version_id ON zoo_aliases (version_id);
CREATE INDEX ix_zoo_alias_log_artefact_id ON zoo_alias_log (artefact_id);
CREATE INDEX ix_zoo_publications_namespace_id ON zoo_publications (namespace_id);
CREATE INDEX ix_zoo_search_documents_kind_published_at ON zoo_search_documents (kind, published_at);
CREATE INDEX ix_zoo_search_documents_newest_published_at ON zoo_search_documents (newest, published_at);
CREATE INDEX ix_zoo_search_documents_model_folded_layer ON zoo_search_documents (model_folded, layer);
CREATE INDEX ix_zoo_tags_tag ON zoo_tags (tag);
CREATE INDEX ix_zoo_figures_name_value ON zoo_figures (name, value);
CREATE INDEX ix_zoo_comments_artefact_id ON zoo_comments (artefact_id);
CREATE INDEX ix_zoo_audit_at ON zoo_audit (at);
CREATE TRIGGER zoo_search_text_insert AFTER INSERT ON zoo_search_documents BEGIN
        INSERT INTO zoo_search_text (rowid, title, body, namespace, name)
        VALUES (new.version_id, new.title, new.body, new.namespace, new.name);
    END;
CREATE TRIGGER zoo_search_text_delete AFTER DELETE ON zoo_search_documents BEGIN
        INSERT INTO zoo_search_text (zoo_search_text, rowid, title, body, namespace, name)
        VALUES ('delete', old.version_id, old.title, old.body, old.namespace, old.name);
    END;
CREATE TRIGGER zoo_search_text_update
    AFTER UPDATE OF version_id, title, body, namespace, name ON zoo_search_documents BEGIN
        INSERT INTO zoo_search_text (zoo_search_text, rowid, title, body, namespace, name)
        VALUES ('delete', old.version_id, old.title, old.body, old.namespace, old.name);
        INSERT INTO zoo_search_text (rowid, title, body, namespace, name)
        VALUES (new.version_id, new.title, new.body, new.namespace, new.name);
    END;
INSERT INTO zoo_version (version_num) VALUES ('0001');
INSERT INTO zoo_namespaces (id, name, kind, title, quota_bytes, created_at, deleted_at) VALUES (1,'ada','person','',NULL,1.7956791571410164833e+09,NULL);
INSERT INTO zoo_artefacts (id, namespace_id, name, kind, private, stars, created_at, updated_at, deleted_at) VALUES (1,1,'gpt2-l8','SAE_MODEL',0,0,1.79567915717300176621e+09,1.79567915721299362183e+09,NULL);
INSERT INTO zoo_versions (id, artefact_id, label, sort_key, digest, manifest, kind, state, reason, successor_id, size_bytes, downloads, publisher_id, created_at, published_at, changed_at) VALUES (1,1,'1.0','010.011 201','sha256:6c91a2b0b1793051a8f2c90a4b676c90254b0302ece82b732ece5968fa60dc35',X'7B22617574686F7273223A5B7B226E616D65223A2241646120C5816F76656C616365227D5D2C2263726561746564223A22323032362D31312D32365430303A30303A30305A222C2266696C6573223A5B7B22646967657374223A227368613235363A36666132633965613032643662366363346165623836343935643961316265616337656265626137323032336562643263316563383536343131376631633665222C226D656469615F74797065223A22746578742F706C61696E222C2270617468223A22612E747874222C2273697A65223A397D5D2C226B696E64223A225341455F4D4F44454C222C226C6963656E6365223A224D4954222C226E616D65223A22677074322D6C38222C226E616D657370616365223A22616461222C227265636F7264223A7B22617263686974656374757265223A22746F706B222C22645F696E223A3736382C22645F736165223A343039362C22666F726D6174223A226F74686572222C22686F6F6B223A7B22636F6D706F6E656E74223A22726573696475616C222C226C61796572223A382C226E616D65223A226C61796572732E382E726573696475616C227D2C226D657472696373223A7B226578706C61696E65645F76617269616E6365223A302E38312C226C30223A33322E307D2C226D6F64656C223A7B226E616D65223A226F70656E61692D636F6D6D756E6974792F67707432227D7D2C22736368656D61223A226E6575726F6E6D61702F7A6F6F2E6D616E69666573742F312E30222C2274616773223A5B22726573696475616C225D2C227469746C65223A22526573696475616C2073747265616D206F66204750542D32222C2276657273696F6E223A22312E30227D','SAE_MODEL','deprecated','old',2,9,0,NULL,1.79567915717601919167e+09,1.79567915717601919167e+09,1.79567915724200153348e+09);
INSERT INTO zoo_versions (id, artefact_id, label, sort_key, digest, manifest, kind, state, reason, successor_id, size_bytes, downloads, publisher_id, created_at, published_at, changed_at) VALUES (2,1,'2.0','010.012 201','sha256:699c0a6fbd1f4b965e930135f6fb14b3a4ae7d503f402e7d7837a58a84193db1',X'7B22617574686F7273223A5B7B226E616D65223A2241646120C5816F76656C616365227D5D2C2263726561746564223A22323032362D31312D32365430303A30303A30305A222C22646570656E64735F6F6E223A5B7B22646967657374223A227368613235363A36633931613262306231373933303531613866326339306134623637366339303235346230333032656365383262373332656365353936386661363064633335222C22726F6C65223A2262617365227D5D2C2266696C6573223A5B7B22646967657374223A227368613235363A30363630383561343634633834636337623135313764643037623630303462343830386239313233363439316565626636343565366136623935343336643338222C226D656469615F74797065223A22746578742F706C61696E222C2270617468223A22612E747874222C2273697A65223A31307D5D2C226B696E64223A225341455F4D4F44454C222C226C6963656E6365223A224D4954222C226E616D65223A22677074322D6C38222C226E616D657370616365223A22616461222C227265636F7264223A7B22617263686974656374757265223A22746F706B222C22645F696E223A3736382C22645F736165223A343039362C22666F726D6174223A226F74686572222C22686F6F6B223A7B22636F6D706F6E656E74223A22726573696475616C222C226C61796572223A382C226E616D65223A226C61796572732E382E726573696475616C227D2C226D657472696373223A7B226578706C61696E65645F76617269616E6365223A302E38312C226C30223A33322E307D2C226D6F64656C223A7B226E616D65223A226F70656E61692D636F6D6D756E6974792F67707432227D7D2C22736368656D61223A226E6575726F6E6D61702F7A6F6F2E6D616E69666573742F312E30222C2274616773223A5B22726573696475616C225D2C227469746C65223A22526573696475616C2073747265616D206F66204750542D32222C2276657273696F6E223A22322E30227D','SAE_MODEL','published','',NULL,10,0,NULL,1.79567915721601104733e+09,1.79567915721601104733e+09,1.79567915721601104733e+09);
INSERT INTO zoo_files (version_id, path, digest, size_bytes, media_type) VALUES (1,'a.txt','sha256:6fa2c9ea02d6b6cc4aeb86495d9a1beac7ebeba72023ebd2c1ec8564117f1c6e',9,'text/plain');
INSERT INTO zoo_files (version_id, path, digest, size_bytes, media_type) VALUES (2,'a.txt','sha256:066085a464c84cc7b1517dd07b6004b4808b91236491eebf645e6a6b95436d38',10,'text/plain');
INSERT INTO zoo_edges (version_id, parent_id, role) VALUES (2,1,'base');
INSERT INTO zoo_aliases (artefact_id, alias, version_id, changed_at) VALUES (1,'production',2,1.79567915723198366162e+09);
INSERT INTO zoo_alias_log (id, artefact_id, alias, from_id, to_id, user_id, at, reason) VALUES (1,1,'production',NULL,2,NULL,1.79567915723298931118e+09,'better');
INSERT INTO zoo_blobs (digest, size_bytes, created_at, verified_at, sound) VALUES ('sha256:6fa2c9ea02d6b6cc4aeb86495d9a1beac7ebeba72023ebd2c1ec8564117f1c6e',9,1.79567915716000652318e+09,1.79567915716000652318e+09,1);
INSERT INTO zoo_blobs (digest, size_bytes, created_at, verified_at, sound) VALUES ('sha256:066085a464c84cc7b1517dd07b6004b4808b91236491eebf645e6a6b95436d38',10,1.79567915720498704913e+09,1.79567915720498704913e+09,1);
INSERT INTO zoo_search_documents (version_id, findable, newest, namespace, name, kind, title, model, model_folded, hook, layer, component, architecture, d_in, width, l0, licence, authors, authors_folded, tokenizer_digest, model_digest, fits_models, fits_layers, published_at, summary, body) VALUES (1,1,0,'ada','gpt2-l8','SAE_MODEL','Residual stream of GPT-2','openai-community/gpt2','gpt2','layers.8.residual',8,'residual','topk',768,4096,32.0,'MIT','["Ada Łovelace"]','ada łovelace',NULL,NULL,'','',1.79567915717899656297e+09,'','ada gpt2 l8 residual stream of gpt 2 residual openai community gpt2 layers 8 residual residual topk ada łovelace');
INSERT INTO zoo_search_documents (version_id, findable, newest, namespace, name, kind, title, model, model_folded, hook, layer, component, architecture, d_in, width, l0, licence, authors, authors_folded, tokenizer_digest, model_digest, fits_models, fits_layers, published_at, summary, body) VALUES (2,1,1,'ada','gpt2-l8','SAE_MODEL','Residual stream of GPT-2','openai-community/gpt2','gpt2','layers.8.residual',8,'residual','topk',768,4096,32.0,'MIT','["Ada Łovelace"]','ada łovelace',NULL,NULL,'','',1.7956791572179822922e+09,'','ada gpt2 l8 residual stream of gpt 2 residual openai community gpt2 layers 8 residual residual topk ada łovelace');
INSERT INTO zoo_tags (version_id, tag) VALUES (1,'residual');
INSERT INTO zoo_tags (version_id, tag) VALUES (2,'residual');
INSERT INTO zoo_figures (version_id, name, value) VALUES (1,'explained_variance',0.81);
INSERT INTO zoo_figures (version_id, name, value) VALUES (1,'l0',32.0);
INSERT INTO zoo_figures (version_id, name, value) VALUES (2,'explained_variance',0.81);
INSERT INTO zoo_figures (version_id, name, value) VALUES (2,'l0',32.0);
INSERT INTO zoo_audit (id, at, user_id, action, target, details) VALUES (1,1.79567915718398547165e+09,NULL,'publish','ada/gpt2-l8@1.0','{"digest": "sha256:6c91a2b0b1793051a8f2c90a4b676c90254b0302ece82b732ece5968fa60dc35"}');
INSERT INTO zoo_audit (id, at, user_id, action, target, details) VALUES (2,1795679157.221,NULL,'publish','ada/gpt2-l8@2.0','{"digest": "sha256:699c0a6fbd1f4b965e930135f6fb14b3a4ae7d503f402e7d7837a58a84193db1"}');
INSERT INTO zoo_audit (id, at, user_id, action, target, details) VALUES (3,1.79567915723298931118e+09,NULL,'alias','ada/gpt2-l8@production','{"to": "2.0"}');
INSERT INTO zoo_audit (id, at, user_id, action, target, details) VALUES (4,1.79567915724300742144e+09,NULL,'deprecated','ada/gpt2-l8@1.0','{"reason": "old"}');
COMMIT;
