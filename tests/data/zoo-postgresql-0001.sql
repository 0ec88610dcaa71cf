-- A database of the zoo at migration 0001 on PostgreSQL: the same two versions, alias and deprecation as in zoo-0001.sql.
-- Written once by pg_dump --inserts from such a database, without its settings, and never changed.
BEGIN;
CREATE TABLE public.zoo_alias_log (
    id bigint NOT NULL,
    artefact_id bigint NOT NULL,
    alias character varying(64) NOT NULL,
    from_id bigint,
    to_id bigint,
    user_id bigint,
    at double precision NOT NULL,
    reason text DEFAULT ''::text NOT NULL
);
CREATE SEQUENCE public.zoo_alias_log_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.zoo_alias_log_id_seq OWNED BY public.zoo_alias_log.id;
CREATE TABLE public.zoo_aliases (
    artefact_id bigint NOT NULL,
    alias character varying(64) NOT NULL,
    version_id bigint NOT NULL,
    changed_at double precision NOT NULL
);
CREATE TABLE public.zoo_artefacts (
    id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    name character varying(64) NOT NULL COLLATE pg_catalog."C",
    kind character varying(42) NOT NULL,
    private boolean DEFAULT false NOT NULL,
    stars integer DEFAULT 0 NOT NULL,
    created_at double precision NOT NULL,
    updated_at double precision NOT NULL,
    deleted_at double precision
);
CREATE SEQUENCE public.zoo_artefacts_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.zoo_artefacts_id_seq OWNED BY public.zoo_artefacts.id;
CREATE TABLE public.zoo_audit (
    id bigint NOT NULL,
    at double precision NOT NULL,
    user_id bigint,
    action character varying(60) NOT NULL,
    target character varying(300) NOT NULL,
    details json
);
CREATE SEQUENCE public.zoo_audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.zoo_audit_id_seq OWNED BY public.zoo_audit.id;
CREATE TABLE public.zoo_blobs (
    digest character varying(71) NOT NULL,
    size_bytes bigint NOT NULL,
    created_at double precision NOT NULL,
    verified_at double precision NOT NULL,
    sound boolean DEFAULT true NOT NULL
);
CREATE TABLE public.zoo_collection_items (
    collection_id bigint NOT NULL,
    artefact_id bigint NOT NULL,
    "position" integer NOT NULL,
    note text DEFAULT ''::text NOT NULL
);
CREATE TABLE public.zoo_collections (
    id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    name character varying(64) NOT NULL,
    title character varying(200) DEFAULT ''::character varying NOT NULL,
    description text DEFAULT ''::text NOT NULL,
    created_at double precision NOT NULL
);
CREATE SEQUENCE public.zoo_collections_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.zoo_collections_id_seq OWNED BY public.zoo_collections.id;
CREATE TABLE public.zoo_comments (
    id bigint NOT NULL,
    artefact_id bigint NOT NULL,
    version_id bigint,
    user_id bigint,
    text text NOT NULL,
    created_at double precision NOT NULL,
    deleted_at double precision
);
CREATE SEQUENCE public.zoo_comments_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.zoo_comments_id_seq OWNED BY public.zoo_comments.id;
CREATE TABLE public.zoo_edges (
    version_id bigint NOT NULL,
    parent_id bigint NOT NULL,
    role character varying(42) NOT NULL
);
CREATE TABLE public.zoo_figures (
    version_id bigint NOT NULL,
    name character varying(120) NOT NULL,
    value double precision NOT NULL
);
CREATE TABLE public.zoo_files (
    version_id bigint NOT NULL,
    path character varying(512) NOT NULL,
    digest character varying(71) NOT NULL,
    size_bytes bigint NOT NULL,
    media_type character varying(100) NOT NULL
);
CREATE TABLE public.zoo_leases (
    name character varying(40) NOT NULL,
    holder character varying(64) NOT NULL,
    until double precision NOT NULL
);
CREATE TABLE public.zoo_members (
    namespace_id bigint NOT NULL,
    user_id bigint NOT NULL,
    role character varying(20) NOT NULL
);
CREATE TABLE public.zoo_namespaces (
    id bigint NOT NULL,
    name character varying(64) NOT NULL,
    kind character varying(20) NOT NULL,
    title character varying(200) DEFAULT ''::character varying NOT NULL,
    quota_bytes bigint,
    created_at double precision NOT NULL,
    deleted_at double precision
);
CREATE SEQUENCE public.zoo_namespaces_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.zoo_namespaces_id_seq OWNED BY public.zoo_namespaces.id;
CREATE TABLE public.zoo_publications (
    id bigint NOT NULL,
    key character varying(32) NOT NULL,
    namespace_id bigint NOT NULL,
    user_id bigint,
    reserved_bytes bigint NOT NULL,
    created_at double precision NOT NULL,
    expires_at double precision NOT NULL
);
CREATE SEQUENCE public.zoo_publications_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.zoo_publications_id_seq OWNED BY public.zoo_publications.id;
CREATE TABLE public.zoo_search_documents (
    version_id bigint NOT NULL,
    findable boolean NOT NULL,
    newest boolean NOT NULL,
    namespace character varying(64) NOT NULL,
    name character varying(64) NOT NULL,
    kind character varying(42) NOT NULL,
    title text NOT NULL,
    model character varying(200),
    model_folded character varying(200),
    hook character varying(300),
    layer integer,
    component character varying(60),
    architecture character varying(64),
    d_in integer,
    width bigint,
    l0 double precision,
    licence character varying(200) NOT NULL,
    authors json NOT NULL,
    authors_folded text NOT NULL,
    tokenizer_digest character varying(71),
    model_digest character varying(71),
    fits_models text NOT NULL,
    fits_layers text NOT NULL,
    published_at double precision NOT NULL,
    summary text NOT NULL,
    body text NOT NULL,
    text_vector tsvector GENERATED ALWAYS AS ((((setweight(to_tsvector('simple'::regconfig, translate((name)::text, '._-'::text, '   '::text)), 'A'::"char") || setweight(to_tsvector('simple'::regconfig, title), 'B'::"char")) || setweight(to_tsvector('simple'::regconfig, translate((namespace)::text, '._-'::text, '   '::text)), 'C'::"char")) || to_tsvector('simple'::regconfig, body))) STORED
);
CREATE TABLE public.zoo_stars (
    artefact_id bigint NOT NULL,
    user_id bigint NOT NULL,
    created_at double precision NOT NULL
);
CREATE TABLE public.zoo_tags (
    version_id bigint NOT NULL,
    tag character varying(50) NOT NULL
);
CREATE TABLE public.zoo_tokens (
    id bigint NOT NULL,
    user_id bigint NOT NULL,
    kind character varying(20) NOT NULL,
    title character varying(200) DEFAULT ''::character varying NOT NULL,
    secret_sha256 character varying(64) NOT NULL,
    shown character varying(20) NOT NULL,
    scopes json NOT NULL,
    namespace_id bigint,
    created_at double precision NOT NULL,
    expires_at double precision,
    used_at double precision,
    revoked_at double precision
);
CREATE SEQUENCE public.zoo_tokens_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.zoo_tokens_id_seq OWNED BY public.zoo_tokens.id;
CREATE TABLE public.zoo_uploads (
    id bigint NOT NULL,
    key character varying(32) NOT NULL,
    publication_id bigint NOT NULL,
    digest character varying(71) NOT NULL,
    size_bytes bigint NOT NULL,
    received_bytes bigint DEFAULT '0'::bigint NOT NULL,
    state json,
    done boolean DEFAULT false NOT NULL,
    created_at double precision NOT NULL
);
CREATE SEQUENCE public.zoo_uploads_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.zoo_uploads_id_seq OWNED BY public.zoo_uploads.id;
CREATE TABLE public.zoo_users (
    id bigint NOT NULL,
    name character varying(64) NOT NULL,
    email character varying(320),
    password_hash text,
    subject text,
    is_admin boolean DEFAULT false NOT NULL,
    disabled boolean DEFAULT false NOT NULL,
    created_at double precision NOT NULL
);
CREATE SEQUENCE public.zoo_users_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.zoo_users_id_seq OWNED BY public.zoo_users.id;
CREATE TABLE public.zoo_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.zoo_versions (
    id bigint NOT NULL,
    artefact_id bigint NOT NULL,
    label character varying(64) NOT NULL,
    sort_key character varying(200) NOT NULL COLLATE pg_catalog."C",
    digest character varying(71) NOT NULL,
    manifest bytea NOT NULL,
    kind character varying(42) NOT NULL,
    state character varying(20) NOT NULL,
    reason text DEFAULT ''::text NOT NULL,
    successor_id bigint,
    size_bytes bigint NOT NULL,
    downloads bigint DEFAULT '0'::bigint NOT NULL,
    publisher_id bigint,
    created_at double precision NOT NULL,
    published_at double precision,
    changed_at double precision NOT NULL,
    CONSTRAINT ck_zoo_versions_state CHECK (((state)::text = ANY ((ARRAY['draft'::character varying, 'published'::character varying, 'deprecated'::character varying, 'yanked'::character varying, 'deleted'::character varying])::text[])))
);
CREATE SEQUENCE public.zoo_versions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.zoo_versions_id_seq OWNED BY public.zoo_versions.id;
ALTER TABLE ONLY public.zoo_alias_log ALTER COLUMN id SET DEFAULT nextval('public.zoo_alias_log_id_seq'::regclass);
ALTER TABLE ONLY public.zoo_artefacts ALTER COLUMN id SET DEFAULT nextval('public.zoo_artefacts_id_seq'::regclass);
ALTER TABLE ONLY public.zoo_audit ALTER COLUMN id SET DEFAULT nextval('public.zoo_audit_id_seq'::regclass);
ALTER TABLE ONLY public.zoo_collections ALTER COLUMN id SET DEFAULT nextval('public.zoo_collections_id_seq'::regclass);
ALTER TABLE ONLY public.zoo_comments ALTER COLUMN id SET DEFAULT nextval('public.zoo_comments_id_seq'::regclass);
ALTER TABLE ONLY public.zoo_namespaces ALTER COLUMN id SET DEFAULT nextval('public.zoo_namespaces_id_seq'::regclass);
ALTER TABLE ONLY public.zoo_publications ALTER COLUMN id SET DEFAULT nextval('public.zoo_publications_id_seq'::regclass);
ALTER TABLE ONLY public.zoo_tokens ALTER COLUMN id SET DEFAULT nextval('public.zoo_tokens_id_seq'::regclass);
ALTER TABLE ONLY public.zoo_uploads ALTER COLUMN id SET DEFAULT nextval('public.zoo_uploads_id_seq'::regclass);
ALTER TABLE ONLY public.zoo_users ALTER COLUMN id SET DEFAULT nextval('public.zoo_users_id_seq'::regclass);
ALTER TABLE ONLY public.zoo_versions ALTER COLUMN id SET DEFAULT nextval('public.zoo_versions_id_seq'::regclass);
INSERT INTO public.zoo_alias_log VALUES (1, 1, 'production', NULL, 2, NULL, 1795679157.2329893, 'better');
INSERT INTO public.zoo_aliases VALUES (1, 'production', 2, 1795679157.2319837);
INSERT INTO public.zoo_artefacts VALUES (1, 1, 'gpt2-l8', 'SAE_MODEL', false, 0, 1795679157.1730018, 1795679157.2129936, NULL);
INSERT INTO public.zoo_audit VALUES (1, 1795679157.1839855, NULL, 'publish', 'ada/gpt2-l8@1.0', '{"digest": "sha256:6c91a2b0b1793051a8f2c90a4b676c90254b0302ece82b732ece5968fa60dc35"}');
INSERT INTO public.zoo_audit VALUES (2, 1795679157.221, NULL, 'publish', 'ada/gpt2-l8@2.0', '{"digest": "sha256:699c0a6fbd1f4b965e930135f6fb14b3a4ae7d503f402e7d7837a58a84193db1"}');
INSERT INTO public.zoo_audit VALUES (3, 1795679157.2329893, NULL, 'alias', 'ada/gpt2-l8@production', '{"to": "2.0"}');
INSERT INTO public.zoo_audit VALUES (4, 1795679157.2430074, NULL, 'deprecated', 'ada/gpt2-l8@1.0', '{"reason": "old"}');
INSERT INTO public.zoo_blobs VALUES ('sha256:6fa2c9ea02d6b6cc4aeb86495d9a1beac7ebeba72023ebd2c1ec8564117f1c6e', 9, 1795679157.1600065, 1795679157.1600065, true);
INSERT INTO public.zoo_blobs VALUES ('sha256:066085a464c84cc7b1517dd07b6004b4808b91236491eebf645e6a6b95436d38', 10, 1795679157.204987, 1795679157.204987, true);
INSERT INTO public.zoo_edges VALUES (2, 1, 'base');
INSERT INTO public.zoo_figures VALUES (1, 'explained_variance', 0.81);
INSERT INTO public.zoo_figures VALUES (1, 'l0', 32);
INSERT INTO public.zoo_figures VALUES (2, 'explained_variance', 0.81);
INSERT INTO public.zoo_figures VALUES (2, 'l0', 32);
INSERT INTO public.zoo_files VALUES (1, 'a.txt', 'sha256:6fa2c9ea02d6b6cc4aeb86495d9a1beac7ebeba72023ebd2c1ec8564117f1c6e', 9, 'text/plain');
INSERT INTO public.zoo_files VALUES (2, 'a.txt', 'sha256:066085a464c84cc7b1517dd07b6004b4808b91236491eebf645e6a6b95436d38', 10, 'text/plain');
INSERT INTO public.zoo_namespaces VALUES (1, 'ada', 'person', '', NULL, 1795679157.1410165, NULL);
INSERT INTO public.zoo_search_documents VALUES (1, true, false, 'ada', 'gpt2-l8', 'SAE_MODEL', 'Residual stream of GPT-2', 'openai-community/gpt2', 'gpt2', 'layers.8.residual', 8, 'residual', 'topk', 768, 4096, 32, 'MIT', '["Ada Łovelace"]', 'ada łovelace', NULL, NULL, '', '', 1795679157.1789966, '', 'ada gpt2 l8 residual stream of gpt 2 residual openai community gpt2 layers 8 residual residual topk ada łovelace', DEFAULT);
INSERT INTO public.zoo_search_documents VALUES (2, true, true, 'ada', 'gpt2-l8', 'SAE_MODEL', 'Residual stream of GPT-2', 'openai-community/gpt2', 'gpt2', 'layers.8.residual', 8, 'residual', 'topk', 768, 4096, 32, 'MIT', '["Ada Łovelace"]', 'ada łovelace', NULL, NULL, '', '', 1795679157.2179823, '', 'ada gpt2 l8 residual stream of gpt 2 residual openai community gpt2 layers 8 residual residual topk ada łovelace', DEFAULT);
INSERT INTO public.zoo_tags VALUES (1, 'residual');
INSERT INTO public.zoo_tags VALUES (2, 'residual');
INSERT INTO public.zoo_version VALUES ('0001');
INSERT INTO public.zoo_versions VALUES (2, 1, '2.0', '010.012 201', 'sha256:699c0a6fbd1f4b965e930135f6fb14b3a4ae7d503f402e7d7837a58a84193db1', '\x7b22617574686f7273223a5b7b226e616d65223a2241646120c5816f76656c616365227d5d2c2263726561746564223a22323032362d31312d32365430303a30303a30305a222c22646570656e64735f6f6e223a5b7b22646967657374223a227368613235363a36633931613262306231373933303531613866326339306134623637366339303235346230333032656365383262373332656365353936386661363064633335222c22726f6c65223a2262617365227d5d2c2266696c6573223a5b7b22646967657374223a227368613235363a30363630383561343634633834636337623135313764643037623630303462343830386239313233363439316565626636343565366136623935343336643338222c226d656469615f74797065223a22746578742f706c61696e222c2270617468223a22612e747874222c2273697a65223a31307d5d2c226b696e64223a225341455f4d4f44454c222c226c6963656e6365223a224d4954222c226e616d65223a22677074322d6c38222c226e616d657370616365223a22616461222c227265636f7264223a7b22617263686974656374757265223a22746f706b222c22645f696e223a3736382c22645f736165223a343039362c22666f726d6174223a226f74686572222c22686f6f6b223a7b22636f6d706f6e656e74223a22726573696475616c222c226c61796572223a382c226e616d65223a226c61796572732e382e726573696475616c227d2c226d657472696373223a7b226578706c61696e65645f76617269616e6365223a302e38312c226c30223a33322e307d2c226d6f64656c223a7b226e616d65223a226f70656e61692d636f6d6d756e6974792f67707432227d7d2c22736368656d61223a226e6575726f6e6d61702f7a6f6f2e6d616e69666573742f312e30222c2274616773223a5b22726573696475616c225d2c227469746c65223a22526573696475616c2073747265616d206f66204750542d32222c2276657273696f6e223a22322e30227d', 'SAE_MODEL', 'published', '', NULL, 10, 0, NULL, 1795679157.216011, 1795679157.216011, 1795679157.216011);
INSERT INTO public.zoo_versions VALUES (1, 1, '1.0', '010.011 201', 'sha256:6c91a2b0b1793051a8f2c90a4b676c90254b0302ece82b732ece5968fa60dc35', '\x7b22617574686f7273223a5b7b226e616d65223a2241646120c5816f76656c616365227d5d2c2263726561746564223a22323032362d31312d32365430303a30303a30305a222c2266696c6573223a5b7b22646967657374223a227368613235363a36666132633965613032643662366363346165623836343935643961316265616337656265626137323032336562643263316563383536343131376631633665222c226d656469615f74797065223a22746578742f706c61696e222c2270617468223a22612e747874222c2273697a65223a397d5d2c226b696e64223a225341455f4d4f44454c222c226c6963656e6365223a224d4954222c226e616d65223a22677074322d6c38222c226e616d657370616365223a22616461222c227265636f7264223a7b22617263686974656374757265223a22746f706b222c22645f696e223a3736382c22645f736165223a343039362c22666f726d6174223a226f74686572222c22686f6f6b223a7b22636f6d706f6e656e74223a22726573696475616c222c226c61796572223a382c226e616d65223a226c61796572732e382e726573696475616c227d2c226d657472696373223a7b226578706c61696e65645f76617269616e6365223a302e38312c226c30223a33322e307d2c226d6f64656c223a7b226e616d65223a226f70656e61692d636f6d6d756e6974792f67707432227d7d2c22736368656d61223a226e6575726f6e6d61702f7a6f6f2e6d616e69666573742f312e30222c2274616773223a5b22726573696475616c225d2c227469746c65223a22526573696475616c2073747265616d206f66204750542d32222c2276657273696f6e223a22312e30227d', 'SAE_MODEL', 'deprecated', 'old', 2, 9, 0, NULL, 1795679157.1760192, 1795679157.1760192, 1795679157.2420015);
SELECT pg_catalog.setval('public.zoo_alias_log_id_seq', 1, true);
SELECT pg_catalog.setval('public.zoo_artefacts_id_seq', 1, true);
SELECT pg_catalog.setval('public.zoo_audit_id_seq', 4, true);
SELECT pg_catalog.setval('public.zoo_collections_id_seq', 1, false);
SELECT pg_catalog.setval('public.zoo_comments_id_seq', 1, false);
SELECT pg_catalog.setval('public.zoo_namespaces_id_seq', 1, true);
SELECT pg_catalog.setval('public.zoo_publications_id_seq', 1, false);
SELECT pg_catalog.setval('public.zoo_tokens_id_seq', 1, false);
SELECT pg_catalog.setval('public.zoo_uploads_id_seq', 1, false);
SELECT pg_catalog.setval('public.zoo_users_id_seq', 1, false);
SELECT pg_catalog.setval('public.zoo_versions_id_seq', 2, true);
ALTER TABLE ONLY public.zoo_alias_log
    ADD CONSTRAINT pk_zoo_alias_log PRIMARY KEY (id);
ALTER TABLE ONLY public.zoo_aliases
    ADD CONSTRAINT pk_zoo_aliases PRIMARY KEY (artefact_id, alias);
ALTER TABLE ONLY public.zoo_artefacts
    ADD CONSTRAINT pk_zoo_artefacts PRIMARY KEY (id);
ALTER TABLE ONLY public.zoo_audit
    ADD CONSTRAINT pk_zoo_audit PRIMARY KEY (id);
ALTER TABLE ONLY public.zoo_blobs
    ADD CONSTRAINT pk_zoo_blobs PRIMARY KEY (digest);
ALTER TABLE ONLY public.zoo_collection_items
    ADD CONSTRAINT pk_zoo_collection_items PRIMARY KEY (collection_id, artefact_id);
ALTER TABLE ONLY public.zoo_collections
    ADD CONSTRAINT pk_zoo_collections PRIMARY KEY (id);
ALTER TABLE ONLY public.zoo_comments
    ADD CONSTRAINT pk_zoo_comments PRIMARY KEY (id);
ALTER TABLE ONLY public.zoo_edges
    ADD CONSTRAINT pk_zoo_edges PRIMARY KEY (version_id, parent_id, role);
ALTER TABLE ONLY public.zoo_figures
    ADD CONSTRAINT pk_zoo_figures PRIMARY KEY (version_id, name);
ALTER TABLE ONLY public.zoo_files
    ADD CONSTRAINT pk_zoo_files PRIMARY KEY (version_id, path);
ALTER TABLE ONLY public.zoo_leases
    ADD CONSTRAINT pk_zoo_leases PRIMARY KEY (name);
ALTER TABLE ONLY public.zoo_members
    ADD CONSTRAINT pk_zoo_members PRIMARY KEY (namespace_id, user_id);
ALTER TABLE ONLY public.zoo_namespaces
    ADD CONSTRAINT pk_zoo_namespaces PRIMARY KEY (id);
ALTER TABLE ONLY public.zoo_publications
    ADD CONSTRAINT pk_zoo_publications PRIMARY KEY (id);
ALTER TABLE ONLY public.zoo_search_documents
    ADD CONSTRAINT pk_zoo_search_documents PRIMARY KEY (version_id);
ALTER TABLE ONLY public.zoo_stars
    ADD CONSTRAINT pk_zoo_stars PRIMARY KEY (artefact_id, user_id);
ALTER TABLE ONLY public.zoo_tags
    ADD CONSTRAINT pk_zoo_tags PRIMARY KEY (version_id, tag);
ALTER TABLE ONLY public.zoo_tokens
    ADD CONSTRAINT pk_zoo_tokens PRIMARY KEY (id);
ALTER TABLE ONLY public.zoo_uploads
    ADD CONSTRAINT pk_zoo_uploads PRIMARY KEY (id);
ALTER TABLE ONLY public.zoo_users
    ADD CONSTRAINT pk_zoo_users PRIMARY KEY (id);
ALTER TABLE ONLY public.zoo_versions
    ADD CONSTRAINT pk_zoo_versions PRIMARY KEY (id);
ALTER TABLE ONLY public.zoo_artefacts
    ADD CONSTRAINT uq_zoo_artefacts_namespace_id_name UNIQUE (namespace_id, name);
ALTER TABLE ONLY public.zoo_collections
    ADD CONSTRAINT uq_zoo_collections_namespace_id_name UNIQUE (namespace_id, name);
ALTER TABLE ONLY public.zoo_namespaces
    ADD CONSTRAINT uq_zoo_namespaces_name UNIQUE (name);
ALTER TABLE ONLY public.zoo_publications
    ADD CONSTRAINT uq_zoo_publications_key UNIQUE (key);
ALTER TABLE ONLY public.zoo_tokens
    ADD CONSTRAINT uq_zoo_tokens_secret_sha256 UNIQUE (secret_sha256);
ALTER TABLE ONLY public.zoo_uploads
    ADD CONSTRAINT uq_zoo_uploads_key UNIQUE (key);
ALTER TABLE ONLY public.zoo_uploads
    ADD CONSTRAINT uq_zoo_uploads_publication_id_digest UNIQUE (publication_id, digest);
ALTER TABLE ONLY public.zoo_users
    ADD CONSTRAINT uq_zoo_users_name UNIQUE (name);
ALTER TABLE ONLY public.zoo_users
    ADD CONSTRAINT uq_zoo_users_subject UNIQUE (subject);
ALTER TABLE ONLY public.zoo_versions
    ADD CONSTRAINT uq_zoo_versions_artefact_id_label UNIQUE (artefact_id, label);
ALTER TABLE ONLY public.zoo_version
    ADD CONSTRAINT zoo_version_pkc PRIMARY KEY (version_num);
CREATE INDEX ix_zoo_alias_log_artefact_id ON public.zoo_alias_log USING btree (artefact_id);
CREATE INDEX ix_zoo_aliases_version_id ON public.zoo_aliases USING btree (version_id);
CREATE INDEX ix_zoo_audit_at ON public.zoo_audit USING btree (at);
CREATE INDEX ix_zoo_comments_artefact_id ON public.zoo_comments USING btree (artefact_id);
CREATE INDEX ix_zoo_edges_parent_id ON public.zoo_edges USING btree (parent_id);
CREATE INDEX ix_zoo_figures_name_value ON public.zoo_figures USING btree (name, value);
CREATE INDEX ix_zoo_files_digest ON public.zoo_files USING btree (digest);
CREATE INDEX ix_zoo_members_user_id ON public.zoo_members USING btree (user_id);
CREATE INDEX ix_zoo_publications_namespace_id ON public.zoo_publications USING btree (namespace_id);
CREATE INDEX ix_zoo_search_documents_kind_published_at ON public.zoo_search_documents USING btree (kind, published_at);
CREATE INDEX ix_zoo_search_documents_model_folded_layer ON public.zoo_search_documents USING btree (model_folded, layer);
CREATE INDEX ix_zoo_search_documents_newest_published_at ON public.zoo_search_documents USING btree (newest, published_at);
CREATE INDEX ix_zoo_search_documents_text_vector ON public.zoo_search_documents USING gin (text_vector);
CREATE INDEX ix_zoo_tags_tag ON public.zoo_tags USING btree (tag);
CREATE INDEX ix_zoo_tokens_user_id ON public.zoo_tokens USING btree (user_id);
CREATE INDEX ix_zoo_versions_digest ON public.zoo_versions USING btree (digest);
ALTER TABLE ONLY public.zoo_alias_log
    ADD CONSTRAINT fk_zoo_alias_log_artefact_id FOREIGN KEY (artefact_id) REFERENCES public.zoo_artefacts(id);
ALTER TABLE ONLY public.zoo_alias_log
    ADD CONSTRAINT fk_zoo_alias_log_from_id FOREIGN KEY (from_id) REFERENCES public.zoo_versions(id);
ALTER TABLE ONLY public.zoo_alias_log
    ADD CONSTRAINT fk_zoo_alias_log_to_id FOREIGN KEY (to_id) REFERENCES public.zoo_versions(id);
ALTER TABLE ONLY public.zoo_alias_log
    ADD CONSTRAINT fk_zoo_alias_log_user_id FOREIGN KEY (user_id) REFERENCES public.zoo_users(id);
ALTER TABLE ONLY public.zoo_aliases
    ADD CONSTRAINT fk_zoo_aliases_artefact_id FOREIGN KEY (artefact_id) REFERENCES public.zoo_artefacts(id);
ALTER TABLE ONLY public.zoo_aliases
    ADD CONSTRAINT fk_zoo_aliases_version_id FOREIGN KEY (version_id) REFERENCES public.zoo_versions(id);
ALTER TABLE ONLY public.zoo_artefacts
    ADD CONSTRAINT fk_zoo_artefacts_namespace_id FOREIGN KEY (namespace_id) REFERENCES public.zoo_namespaces(id);
ALTER TABLE ONLY public.zoo_audit
    ADD CONSTRAINT fk_zoo_audit_user_id FOREIGN KEY (user_id) REFERENCES public.zoo_users(id);
ALTER TABLE ONLY public.zoo_collection_items
    ADD CONSTRAINT fk_zoo_collection_items_artefact_id FOREIGN KEY (artefact_id) REFERENCES public.zoo_artefacts(id);
ALTER TABLE ONLY public.zoo_collection_items
    ADD CONSTRAINT fk_zoo_collection_items_collection_id FOREIGN KEY (collection_id) REFERENCES public.zoo_collections(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.zoo_collections
    ADD CONSTRAINT fk_zoo_collections_namespace_id FOREIGN KEY (namespace_id) REFERENCES public.zoo_namespaces(id);
ALTER TABLE ONLY public.zoo_comments
    ADD CONSTRAINT fk_zoo_comments_artefact_id FOREIGN KEY (artefact_id) REFERENCES public.zoo_artefacts(id);
ALTER TABLE ONLY public.zoo_comments
    ADD CONSTRAINT fk_zoo_comments_user_id FOREIGN KEY (user_id) REFERENCES public.zoo_users(id);
ALTER TABLE ONLY public.zoo_comments
    ADD CONSTRAINT fk_zoo_comments_version_id FOREIGN KEY (version_id) REFERENCES public.zoo_versions(id);
ALTER TABLE ONLY public.zoo_edges
    ADD CONSTRAINT fk_zoo_edges_parent_id FOREIGN KEY (parent_id) REFERENCES public.zoo_versions(id);
ALTER TABLE ONLY public.zoo_edges
    ADD CONSTRAINT fk_zoo_edges_version_id FOREIGN KEY (version_id) REFERENCES public.zoo_versions(id);
ALTER TABLE ONLY public.zoo_figures
    ADD CONSTRAINT fk_zoo_figures_version_id FOREIGN KEY (version_id) REFERENCES public.zoo_versions(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.zoo_files
    ADD CONSTRAINT fk_zoo_files_version_id FOREIGN KEY (version_id) REFERENCES public.zoo_versions(id);
ALTER TABLE ONLY public.zoo_members
    ADD CONSTRAINT fk_zoo_members_namespace_id FOREIGN KEY (namespace_id) REFERENCES public.zoo_namespaces(id);
ALTER TABLE ONLY public.zoo_members
    ADD CONSTRAINT fk_zoo_members_user_id FOREIGN KEY (user_id) REFERENCES public.zoo_users(id);
ALTER TABLE ONLY public.zoo_publications
    ADD CONSTRAINT fk_zoo_publications_namespace_id FOREIGN KEY (namespace_id) REFERENCES public.zoo_namespaces(id);
ALTER TABLE ONLY public.zoo_publications
    ADD CONSTRAINT fk_zoo_publications_user_id FOREIGN KEY (user_id) REFERENCES public.zoo_users(id);
ALTER TABLE ONLY public.zoo_search_documents
    ADD CONSTRAINT fk_zoo_search_documents_version_id FOREIGN KEY (version_id) REFERENCES public.zoo_versions(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.zoo_stars
    ADD CONSTRAINT fk_zoo_stars_artefact_id FOREIGN KEY (artefact_id) REFERENCES public.zoo_artefacts(id);
ALTER TABLE ONLY public.zoo_stars
    ADD CONSTRAINT fk_zoo_stars_user_id FOREIGN KEY (user_id) REFERENCES public.zoo_users(id);
ALTER TABLE ONLY public.zoo_tags
    ADD CONSTRAINT fk_zoo_tags_version_id FOREIGN KEY (version_id) REFERENCES public.zoo_versions(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.zoo_tokens
    ADD CONSTRAINT fk_zoo_tokens_namespace_id FOREIGN KEY (namespace_id) REFERENCES public.zoo_namespaces(id);
ALTER TABLE ONLY public.zoo_tokens
    ADD CONSTRAINT fk_zoo_tokens_user_id FOREIGN KEY (user_id) REFERENCES public.zoo_users(id);
ALTER TABLE ONLY public.zoo_uploads
    ADD CONSTRAINT fk_zoo_uploads_publication_id FOREIGN KEY (publication_id) REFERENCES public.zoo_publications(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.zoo_versions
    ADD CONSTRAINT fk_zoo_versions_artefact_id FOREIGN KEY (artefact_id) REFERENCES public.zoo_artefacts(id);
ALTER TABLE ONLY public.zoo_versions
    ADD CONSTRAINT fk_zoo_versions_publisher_id FOREIGN KEY (publisher_id) REFERENCES public.zoo_users(id);
ALTER TABLE ONLY public.zoo_versions
    ADD CONSTRAINT fk_zoo_versions_successor_id FOREIGN KEY (successor_id) REFERENCES public.zoo_versions(id);
COMMIT;
